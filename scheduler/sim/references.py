"""Names and references of a scenario: everything that needs more than one field to judge.

Owns: no name stands twice, every reference has its object, parents form no ring, times agree. Does not own units or single fields
(scenario.py), or what quotas and capacity reservations may say together (quota_rules.py). A violation is a `ScenarioError` with the
path of the field that is to be changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from quotas.tree import DEPTH_MAXIMUM
from scheduler.sim import expansion, quota_rules
from scheduler.sim.problems import ScenarioError
from scheduler.sim.scenario import NODES_MAXIMUM, RunningPart, Scenario

JOBS_MAXIMUM = 2_000_000


def check(scenario: Scenario) -> None:
    """Raise `ScenarioError` for the first name or reference that is wrong."""
    for problem in problems(scenario):
        raise problem


def problems(scenario: Scenario) -> list[ScenarioError]:
    """Return everything that is wrong with names and references, empty when nothing is.

    Nodes and quota tree are judged first: while they are wrong, what refers to them cannot be judged.
    """
    found: list[ScenarioError] = []
    nodes = _check_nodes(scenario, found)
    leaves = _check_quota_tree(scenario, found)
    if found:
        return found
    jobs = _check_jobs(scenario, leaves, found)
    if found:
        return found
    _check_running(scenario, nodes, found)
    _check_dependencies(scenario, jobs, found)
    _check_rest(scenario, nodes, leaves, found)
    _check_events(scenario, nodes, leaves, found)
    found.extend(quota_rules.problems(scenario, leaves))
    return found


def _unique(names: Iterable[tuple[str, str]], found: list[ScenarioError], *, maximum: int) -> dict[str, str]:
    """Return name -> path; the second of two equal names is a problem."""
    seen: dict[str, str] = {}
    for path, name in names:
        if name in seen:
            found.append(ScenarioError(path, f"{name} stands twice, first at {seen[name]}"))
            continue
        seen[name] = path
        if len(seen) > maximum:
            found.append(ScenarioError(path, f"makes more than {maximum} in all"))
            break
    return seen


def _check_nodes(scenario: Scenario, found: list[ScenarioError]) -> dict[str, int]:
    """Return the number of devices of each node by name."""
    for at, part in enumerate(scenario.nodes):
        if "/" in part.name:
            found.append(ScenarioError(f"nodes[{at}].name", "must not contain a slash, which separates node and device"))
    names = ((f"nodes[{at}].name", name) for at, part in enumerate(scenario.nodes) for name in expansion.names(part.name, part.count))
    known = _unique(names, found, maximum=NODES_MAXIMUM)
    if found:
        return {}
    gpus = {name: part.gpus for part in scenario.nodes for name in expansion.names(part.name, part.count)}
    return {name: gpus[name] for name in known}


def _check_quota_tree(scenario: Scenario, found: list[ScenarioError]) -> set[str]:
    """Return the names that jobs may use: tenants without projects, and projects."""
    cohorts = {part.name for part in scenario.cohorts}
    tenants = {part.name for part in scenario.tenants}
    parts = [
        *((f"cohorts[{at}]", part) for at, part in enumerate(scenario.cohorts)),
        *((f"tenants[{at}]", part) for at, part in enumerate(scenario.tenants)),
    ]
    _unique(((f"{path}.name", part.name) for path, part in parts), found, maximum=JOBS_MAXIMUM)
    parents = {part.name: part.parent for _, part in parts}
    for path, part in parts:
        allowed = cohorts if path.startswith("cohorts") else cohorts | tenants
        if part.parent is not None and part.parent not in allowed:
            kind = "cohort" if allowed is cohorts else "cohort or tenant"
            found.append(ScenarioError(f"{path}.parent", f"there is no {kind} {part.parent}"))
        else:
            _check_depth(path, part.name, parents, found)
    return tenants - {part.parent for part in scenario.tenants if part.parent is not None}


def _check_depth(path: str, name: str, parents: dict[str, str | None], found: list[ScenarioError]) -> None:
    above: str | None = name
    for _ in range(DEPTH_MAXIMUM):
        above = parents[above] if above is not None else None
        if above is None:
            return
        if above not in parents:
            return  # its own entry is refused for it
        if above == name:
            found.append(ScenarioError(f"{path}.parent", "its parents form a ring"))
            return
    found.append(ScenarioError(f"{path}.parent", f"lies more than {DEPTH_MAXIMUM} levels deep"))


def _check_tenant(path: str, tenant: str, leaves: set[str], scenario: Scenario, found: list[ScenarioError]) -> None:
    if tenant in leaves:
        return
    if any(part.parent == tenant for part in scenario.tenants) and any(part.name == tenant for part in scenario.tenants):
        found.append(ScenarioError(path, f"{tenant} has projects; name one of them"))
    else:
        found.append(ScenarioError(path, f"there is no tenant {tenant}"))


def _check_jobs(scenario: Scenario, leaves: set[str], found: list[ScenarioError]) -> dict[str, str]:
    """Return job id -> path, running jobs included."""
    running = ((f"running[{at}].id", part.id) for at, part in enumerate(scenario.running))
    queued = ((f"jobs[{at}].id", name) for at, part in enumerate(scenario.jobs) for name in expansion.names(part.id, part.count))
    known = _unique((*running, *queued), found, maximum=JOBS_MAXIMUM)
    sites = {part.site for part in scenario.nodes}
    for section, parts in (("running", scenario.running), ("jobs", scenario.jobs)):
        for at, part in enumerate(parts):
            _check_tenant(f"{section}[{at}].tenant", part.tenant, leaves, scenario, found)
            for site in expansion.sites(part):
                if site not in sites:
                    field = "site" if part.site else "sites"
                    found.append(ScenarioError(f"{section}[{at}].{field}", f"there is no site {site}"))
            for field in ("deny_sites", "prefer_sites"):
                for site in getattr(part, field):
                    if site not in sites:
                        found.append(ScenarioError(f"{section}[{at}].{field}", f"there is no site {site}"))
    return known


def _check_running(scenario: Scenario, nodes: dict[str, int], found: list[ScenarioError]) -> None:
    holders: dict[tuple[str, int], str] = {}
    for at, part in enumerate(scenario.running):
        path = f"running[{at}]"
        limit_ms = part.limit_ms if part.limit_ms is not None else scenario.policy.default_limit_ms
        if not part.started_ms <= scenario.now_ms < part.started_ms + limit_ms:
            found.append(ScenarioError(f"{path}.started", "must be at or before now, and now before started + limit"))
        if part.at_ms is not None and part.at_ms > part.started_ms:
            found.append(ScenarioError(f"{path}.at", "lies after started"))
        for field, node, device in expansion.named_devices(part):
            problem = _device_problem(part, node, device, nodes, holders)
            if problem is not None:
                found.append(ScenarioError(f"{path}.{field}", problem))
            elif device is not None:
                holders[node, device] = part.id
        _check_replicas(path, part, found)


def _device_problem(
    part: RunningPart, node: str, device: int | None, nodes: dict[str, int], holders: dict[tuple[str, int], str]
) -> str | None:
    if node not in nodes:
        return f"there is no node {node}"
    if device is None:
        return None
    if device >= nodes[node]:
        return f"{node} has {nodes[node]} devices, so there is no device {device}"
    if (node, device) in holders and part.slice is None and not part.milli_gpu % 1000:
        return f"device {device} of {node} is already held by {holders[node, device]}"
    return None


def _check_replicas(path: str, part: RunningPart, found: list[ScenarioError]) -> None:
    wanted = part.milli_gpu // 1000 if part.milli_gpu >= 1000 else int(part.milli_gpu > 0)
    if part.devices is not None and len(part.devices) != wanted:
        found.append(ScenarioError(f"{path}.devices", f"names {len(part.devices)} devices, gpus says {wanted}"))
    if part.slices is None:
        return
    for replica in range(part.replicas):
        own = [piece for piece in part.slices if piece.replica == replica]
        if len(own) != wanted:
            found.append(ScenarioError(f"{path}.slices", f"replica {replica} has {len(own)} slices, gpus says {wanted}"))
        if len({piece.node for piece in own}) > 1:
            found.append(ScenarioError(f"{path}.slices", f"replica {replica} is split over nodes"))
    if any(piece.replica >= part.replicas for piece in part.slices):
        found.append(ScenarioError(f"{path}.slices", f"names a replica beyond the {part.replicas} of the job"))


def _check_dependencies(scenario: Scenario, jobs: dict[str, str], found: list[ScenarioError]) -> None:
    resolved = expansion.dependencies(scenario)
    for at, part in enumerate(scenario.jobs):
        for place, name in enumerate(part.depends_on):
            if not expansion.resolve(name, scenario, jobs):
                found.append(ScenarioError(f"jobs[{at}].depends_on[{place}]", f"there is no job {name}"))
    ring = expansion.first_in_a_ring(resolved)
    if ring is not None:
        found.append(ScenarioError(jobs[ring].removesuffix(".id") + ".depends_on", f"{ring} depends on itself"))


def _check_rest(scenario: Scenario, nodes: dict[str, int], leaves: set[str], found: list[ScenarioError]) -> None:
    if scenario.until_ms is not None and scenario.until_ms < scenario.now_ms:
        found.append(ScenarioError("until", "lies before now"))
    _unique(
        ((f"capacity_reservations[{at}].name", part.name) for at, part in enumerate(scenario.capacity_reservations)),
        found,
        maximum=JOBS_MAXIMUM,
    )
    for at, part in enumerate(scenario.capacity_reservations):
        _check_tenant(f"capacity_reservations[{at}].tenant", part.tenant, leaves, scenario, found)
    for at, generated in enumerate(scenario.generate):
        if generated.tenant is not None:
            _check_tenant(f"generate[{at}].tenant", generated.tenant, leaves, scenario, found)
    maintenance = scenario.maintenance_windows
    _unique(((f"maintenance_windows[{at}].name", window.name) for at, window in enumerate(maintenance)), found, maximum=JOBS_MAXIMUM)
    for at, window in enumerate(maintenance):
        for place, name in enumerate(window.nodes):
            if name not in nodes:
                found.append(ScenarioError(f"maintenance_windows[{at}].nodes[{place}]", f"there is no node {name}"))


def _check_events(scenario: Scenario, nodes: dict[str, int], leaves: set[str], found: list[ScenarioError]) -> None:
    quota_nodes = {part.name for part in (*scenario.cohorts, *scenario.tenants)}
    for at, event in enumerate(scenario.events):
        for field in ("drain", "undrain", "fail", "recover"):
            name = getattr(event, field)
            if name is not None and name not in nodes:
                found.append(ScenarioError(f"events[{at}].{field}", f"there is no node {name}"))
        if event.device_fail is not None:
            problem = _failed_device_problem(event.device_fail, nodes)
            if problem is not None:
                found.append(ScenarioError(f"events[{at}].device_fail", problem))
        if event.quota is not None and event.quota.tenant not in quota_nodes:
            found.append(ScenarioError(f"events[{at}].quota.tenant", f"there is no tenant or cohort {event.quota.tenant}"))


def _failed_device_problem(text: str, nodes: dict[str, int]) -> str | None:
    node, separator, index = text.rpartition("/")
    if not separator or not index.isascii() or not index.isdigit():
        return 'must be "NODE/DEVICE"'
    if node not in nodes:
        return f"there is no node {node}"
    if int(index) >= nodes[node]:
        return f"{node} has {nodes[node]} devices, so there is no device {index}"
    return None
