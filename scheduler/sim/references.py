"""Names and references of a scenario: everything that needs more than one field to judge.

Owns: no name stands twice, every reference has its object, parents form no ring, windows and limits agree. Does not own units or
single fields (scenario.py). A violation is a `ScenarioError` with the path of the field that is to be changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quotas.tree import DEPTH_MAXIMUM
from scheduler.sim import expansion
from scheduler.sim.problems import ScenarioError
from scheduler.sim.scenario import NODES_MAXIMUM, Scenario

JOBS_MAXIMUM = 2_000_000


def check(scenario: Scenario) -> None:
    """Raise `ScenarioError` for the first name or reference that is wrong."""
    nodes = _check_nodes(scenario)
    leaves = _check_quota_tree(scenario)
    jobs = _check_jobs(scenario, leaves)
    _check_running(scenario, leaves, nodes)
    _check_dependencies(scenario, jobs)
    _check_rest(scenario, nodes, leaves)


def _unique(names: Iterable[tuple[str, str]], *, maximum: int) -> dict[str, str]:
    """Return name -> path; refuse the second of two equal names."""
    seen: dict[str, str] = {}
    for path, name in names:
        if name in seen:
            raise ScenarioError(path, f"{name} stands twice, first at {seen[name]}")
        seen[name] = path
        if len(seen) > maximum:
            raise ScenarioError(path, f"makes more than {maximum} in all")
    return seen


def _check_nodes(scenario: Scenario) -> dict[str, int]:
    """Return the number of devices of each node by name."""
    for at, part in enumerate(scenario.nodes):
        if "/" in part.name:
            raise ScenarioError(f"nodes[{at}].name", "must not contain a slash, which separates node and device")
    names = ((f"nodes[{at}].name", name) for at, part in enumerate(scenario.nodes) for name in expansion.names(part.name, part.count))
    known = _unique(names, maximum=NODES_MAXIMUM)
    gpus = {name: part.gpus for part in scenario.nodes for name in expansion.names(part.name, part.count)}
    return {name: gpus[name] for name in known}


def _check_quota_tree(scenario: Scenario) -> set[str]:
    """Return the names that jobs may use: tenants without projects, and projects."""
    cohorts = {part.name for part in scenario.cohorts}
    tenants = {part.name for part in scenario.tenants}
    parts = [
        *((f"cohorts[{at}]", part) for at, part in enumerate(scenario.cohorts)),
        *((f"tenants[{at}]", part) for at, part in enumerate(scenario.tenants)),
    ]
    _unique(((f"{path}.name", part.name) for path, part in parts), maximum=JOBS_MAXIMUM)
    parents = {part.name: part.parent for _, part in parts}
    for path, part in parts:
        allowed = cohorts if path.startswith("cohorts") else cohorts | tenants
        if part.parent is not None and part.parent not in allowed:
            raise ScenarioError(f"{path}.parent", f"there is no {'cohort' if allowed is cohorts else 'cohort or tenant'} {part.parent}")
        _check_depth(path, part.name, parents)
        if part.parent is None:
            for field, resource in _borrowing(part.quota.by_resource()):
                raise ScenarioError(f"{path}.quota.{resource}.{field}", "there is nobody to borrow from without a parent")
    return tenants - {part.parent for part in scenario.tenants if part.parent is not None}


def _check_depth(path: str, name: str, parents: dict[str, str | None]) -> None:
    above: str | None = name
    for _ in range(DEPTH_MAXIMUM):
        above = parents[above] if above is not None else None
        if above is None:
            return
        if above not in parents:
            return  # its own entry is refused for it
        if above == name:
            raise ScenarioError(f"{path}.parent", "its parents form a ring")
    raise ScenarioError(f"{path}.parent", f"lies more than {DEPTH_MAXIMUM} levels deep")


def _borrowing(quotas: dict[str, expansion.Quota]) -> Iterator[tuple[str, str]]:
    names = {"cpu": "cpus", "memory": "memory_gib"}
    for resource, quota in quotas.items():
        if quota.borrowing_limit is not None:
            yield "borrow", names.get(resource, resource)


def _check_tenant(path: str, tenant: str, leaves: set[str], scenario: Scenario) -> None:
    if tenant in leaves:
        return
    if any(part.parent == tenant for part in scenario.tenants) and any(part.name == tenant for part in scenario.tenants):
        raise ScenarioError(path, f"{tenant} has projects; name one of them")
    raise ScenarioError(path, f"there is no tenant {tenant}")


def _check_jobs(scenario: Scenario, leaves: set[str]) -> dict[str, str]:
    """Return job id -> path, running jobs included."""
    running = ((f"running[{at}].id", part.id) for at, part in enumerate(scenario.running))
    queued = ((f"jobs[{at}].id", name) for at, part in enumerate(scenario.jobs) for name in expansion.names(part.id, part.count))
    known = _unique((*running, *queued), maximum=JOBS_MAXIMUM)
    sites = {part.site for part in scenario.nodes}
    for section, parts in (("running", scenario.running), ("jobs", scenario.jobs)):
        for at, part in enumerate(parts):
            _check_tenant(f"{section}[{at}].tenant", part.tenant, leaves, scenario)
            for site in expansion.sites(part):
                if site not in sites:
                    raise ScenarioError(f"{section}[{at}].{'site' if part.site else 'sites'}", f"there is no site {site}")
    return known


def _check_running(scenario: Scenario, leaves: set[str], nodes: dict[str, int]) -> None:
    holders: dict[tuple[str, int], str] = {}
    for at, part in enumerate(scenario.running):
        path = f"running[{at}]"
        limit_ms = part.limit_ms if part.limit_ms is not None else scenario.policy.default_limit_ms
        if not part.started_ms <= scenario.now_ms < part.started_ms + limit_ms:
            raise ScenarioError(f"{path}.started", "must be at or before now, and now before started + limit")
        if part.at_ms is not None and part.at_ms > part.started_ms:
            raise ScenarioError(f"{path}.at", "lies after started")
        for field, node, device in expansion.named_devices(part):
            if node not in nodes:
                raise ScenarioError(f"{path}.{field}", f"there is no node {node}")
            if device is None:
                continue
            if device >= nodes[node]:
                raise ScenarioError(f"{path}.{field}", f"{node} has {nodes[node]} devices, so there is no device {device}")
            if (node, device) in holders and part.slice is None and not part.milli_gpu % 1000:
                raise ScenarioError(f"{path}.{field}", f"device {device} of {node} is already held by {holders[node, device]}")
            holders[node, device] = part.id
        _check_replicas(path, part)


def _check_replicas(path: str, part: expansion.RunningPart) -> None:
    wanted = part.milli_gpu // 1000 if part.milli_gpu >= 1000 else int(part.milli_gpu > 0)
    if part.devices is not None and len(part.devices) != wanted:
        raise ScenarioError(f"{path}.devices", f"names {len(part.devices)} devices, gpus says {wanted}")
    if part.slices is None:
        return
    for replica in range(part.replicas):
        own = [piece for piece in part.slices if piece.replica == replica]
        if len(own) != wanted:
            raise ScenarioError(f"{path}.slices", f"replica {replica} has {len(own)} slices, gpus says {wanted}")
        if len({piece.node for piece in own}) > 1:
            raise ScenarioError(f"{path}.slices", f"replica {replica} is split over nodes")
    if any(piece.replica >= part.replicas for piece in part.slices):
        raise ScenarioError(f"{path}.slices", f"names a replica beyond the {part.replicas} of the job")


def _check_dependencies(scenario: Scenario, jobs: dict[str, str]) -> None:
    resolved = expansion.dependencies(scenario)
    for at, part in enumerate(scenario.jobs):
        for place, name in enumerate(part.depends_on):
            if not expansion.resolve(name, scenario, jobs):
                raise ScenarioError(f"jobs[{at}].depends_on[{place}]", f"there is no job {name}")
    ring = expansion.first_in_a_ring(resolved)
    if ring is not None:
        raise ScenarioError(jobs[ring].removesuffix(".id") + ".depends_on", f"{ring} depends on itself")


def _check_rest(scenario: Scenario, nodes: dict[str, int], leaves: set[str]) -> None:
    if scenario.until_ms is not None and scenario.until_ms < scenario.now_ms:
        raise ScenarioError("until", "lies before now")
    quota_nodes = {part.name for part in (*scenario.cohorts, *scenario.tenants)}
    _unique(
        ((f"capacity_reservations[{at}].name", part.name) for at, part in enumerate(scenario.capacity_reservations)),
        maximum=JOBS_MAXIMUM,
    )
    for at, part in enumerate(scenario.capacity_reservations):
        _check_tenant(f"capacity_reservations[{at}].tenant", part.tenant, leaves, scenario)
    for at, generated in enumerate(scenario.generate):
        if generated.tenant is not None:
            _check_tenant(f"generate[{at}].tenant", generated.tenant, leaves, scenario)
    for at, event in enumerate(scenario.events):
        for field in ("drain", "undrain", "fail", "recover"):
            name = getattr(event, field)
            if name is not None and name not in nodes:
                raise ScenarioError(f"events[{at}].{field}", f"there is no node {name}")
        if event.device_fail is not None:
            _check_device(f"events[{at}].device_fail", event.device_fail, nodes)
        if event.quota is not None and event.quota.tenant not in quota_nodes:
            raise ScenarioError(f"events[{at}].quota.tenant", f"there is no tenant or cohort {event.quota.tenant}")


def _check_device(path: str, text: str, nodes: dict[str, int]) -> None:
    node, separator, index = text.rpartition("/")
    if not separator or not index.isascii() or not index.isdigit():
        raise ScenarioError(path, 'must be "NODE/DEVICE"')
    if node not in nodes:
        raise ScenarioError(path, f"there is no node {node}")
    if int(index) >= nodes[node]:
        raise ScenarioError(path, f"{node} has {nodes[node]} devices, so there is no device {index}")
