"""From what a client sent to jobs that can be stored: every check that rows and catalogs know, before anything is written.

Pure but for identifiers: `prepare` turns specifications and catalogs into `NewJob`s or raises the first refusal, which names the field by
its path and the limit that it broke. Shape and ranges were checked by the wire models before. Whether a job *can ever* run is decided here;
whether it may run *now* is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api import placement
from api.placement import Place
from api.refusing import Refusing, some
from domain.jobs import Shape
from domain.slices import MILLI_GPU_PER_DEVICE, DeviceMode
from store import jobs
from store.catalog import FlavorTerms, FleetCatalog, NodeMaxima, TenantCatalog
from store.errors import InvalidError
from store.jobs import NewJob
from terrace.models.jobs import JobSpec, Within

MILLISECONDS_PER_SECOND = 1_000


@dataclass(frozen=True, slots=True)
class Terms:
    """On whose behalf jobs are prepared, and whether the executor can spread a gang over nodes."""

    tenant_id: str
    user_id: str
    gangs_span_nodes: bool


def prepare(
    specs: Sequence[JobSpec],
    fleet: FleetCatalog,
    tenant: TenantCatalog,
    terms: Terms,
    *,
    is_batch: bool,
    new_id: Callable[[str], str],
) -> list[NewJob]:
    """Return the jobs to store, in order; InvalidError names the first field that cannot be."""
    keys: dict[tuple[object, ...], jobs.ClassKey] = {}
    made = []
    for position, spec in enumerate(specs):
        refusing = Refusing(f"jobs[{position}]." if is_batch else "", gangs_span_nodes=terms.gangs_span_nodes)
        place = placement.place_of(spec, fleet, refusing)
        shape, limit_ms, project_id = _resolve(spec, fleet, tenant, place, refusing)
        known = (project_id, shape, limit_ms, spec.priority, spec.tier, place.where)
        key = keys.get(known)
        if key is None:
            key = keys[known] = jobs.class_key(
                terms.tenant_id,
                project_id,
                shape,
                limit_ms=limit_ms,
                priority=spec.priority,
                user_id=terms.user_id,
                tier=spec.tier,
                where=place.where,
            )
        made.append(
            NewJob(
                id=new_id("job"),
                job_class=key,
                shape=shape,
                name=spec.name,
                project=spec.project,
                tier=spec.tier,
                entrypoint=spec.entrypoint,
                environment=spec.environment,
                archive_sha256=spec.archive_sha256,
                requirements=spec.requirements,
                maximum_attempts=spec.maximum_attempts,
            )
        )
    return made


def _resolve(spec: JobSpec, fleet: FleetCatalog, tenant: TenantCatalog, place: Place, refusing: Refusing) -> tuple[Shape, int, str]:
    project_id = tenant.projects.get(spec.project)
    if project_id is None:
        refusing.refuse("unknown_project", "project", f"there is no project {spec.project!r}", some(tenant.projects))
    limit_ms = _limit_ms(spec, fleet, refusing)
    if spec.gpus == 0:
        flavors: tuple[FlavorTerms, ...] = ()
        _check_without_gpus(spec, fleet, place, refusing)
    else:
        flavors = _possible(spec, _flavors(spec, fleet, tenant, refusing), fleet, tenant, place, refusing)
    _check_ceiling(spec.cpu_milli * spec.replicas, "cpu", "cpu_milli", tenant, refusing)
    _check_ceiling(spec.memory_bytes * spec.replicas, "memory", "memory_bytes", tenant, refusing)
    shape = Shape(
        flavors=tuple(flavor.name for flavor in flavors),
        replicas=spec.replicas,
        slices_per_replica=spec.gpus,
        milli_gpu_per_slice=MILLI_GPU_PER_DEVICE,
        cpu_milli_per_replica=spec.cpu_milli,
        memory_bytes_per_replica=spec.memory_bytes,
        sites=place.sites,
    )
    return shape, limit_ms, project_id


def _limit_ms(spec: JobSpec, fleet: FleetCatalog, refusing: Refusing) -> int:
    tier = fleet.tiers.get(spec.tier)
    if tier is None:
        refusing.refuse("unknown_tier", "tier", f"there is no tier {spec.tier!r}", some(fleet.tiers))
    if not tier.priority_minimum <= spec.priority <= tier.priority_maximum:
        bounds = [tier.priority_minimum, tier.priority_maximum]
        refusing.refuse("priority_outside_tier", "priority", f"tier {spec.tier!r} allows {bounds[0]} to {bounds[1]}", bounds)
    if spec.limit_seconds is None:
        return tier.default_limit_ms
    maximum_seconds = tier.maximum_limit_ms // MILLISECONDS_PER_SECOND
    if spec.limit_seconds > maximum_seconds:
        refusing.refuse("limit_over_tier", "limit_seconds", f"tier {spec.tier!r} allows at most {maximum_seconds} s", maximum_seconds)
    return spec.limit_seconds * MILLISECONDS_PER_SECOND


def _check_without_gpus(spec: JobSpec, fleet: FleetCatalog, place: Place, refusing: Refusing) -> None:
    if spec.cpu_milli == 0:
        refusing.refuse("nothing_asked_for", "cpu_milli", "a job with gpus 0 needs CPUs", 1)
    if spec.flavors:
        refusing.refuse("flavors_without_gpus", "flavors", "a job with gpus 0 names no flavors", 0)
    _check_node(spec, place.maxima(None, fleet, refusing), refusing)


def _flavors(spec: JobSpec, fleet: FleetCatalog, tenant: TenantCatalog, refusing: Refusing) -> tuple[FlavorTerms, ...]:
    whole = {name: flavor for name, flavor in fleet.flavors.items() if flavor.mode == DeviceMode.WHOLE}
    if not spec.flavors:
        chosen = tuple(flavor for flavor in whole.values() if tenant.ceilings.get(flavor.gpu_model, 0) > 0)
        if not chosen:
            refusing.refuse("not_permitted", "flavors", "the tenant has no quota for any GPU model", sorted(tenant.ceilings))
        return chosen
    for position, name in enumerate(spec.flavors):
        if name not in whole:
            refusing.refuse("unknown_flavor", f"flavors[{position}]", f"there is no flavor {name!r}", some(whole))
    if len(set(spec.flavors)) != len(spec.flavors):
        refusing.refuse("flavor_twice", "flavors", "a flavor is named twice", 1)
    return tuple(whole[name] for name in spec.flavors)


def _possible(
    spec: JobSpec, flavors: Sequence[FlavorTerms], fleet: FleetCatalog, tenant: TenantCatalog, place: Place, refusing: Refusing
) -> tuple[FlavorTerms, ...]:
    """Return the flavors that could ever do; when none could, the refusal speaks of the last one."""
    possible = []
    refusal: InvalidError | None = None
    for flavor in flavors:
        try:
            _check_quota(spec, flavor, tenant, refusing)
            _check_node(spec, place.maxima(flavor.gpu_model, fleet, refusing), refusing)
        except InvalidError as error:
            refusal = error
        else:
            possible.append(flavor)
    if not possible and refusal is not None:
        raise refusal
    return tuple(possible)


def _check_quota(spec: JobSpec, flavor: FlavorTerms, tenant: TenantCatalog, refusing: Refusing) -> None:
    ceiling_milli_gpu = tenant.ceilings.get(flavor.gpu_model)
    if ceiling_milli_gpu is None:
        refusing.refuse("not_permitted", "flavors", f"the tenant has no quota for {flavor.gpu_model}", sorted(tenant.ceilings))
    ceiling = ceiling_milli_gpu // flavor.milli_gpu
    wanted = spec.replicas * spec.gpus
    if wanted > ceiling:
        message = f"{spec.replicas} x {spec.gpus} = {wanted} GPUs, but the tenant's quota could give at most {ceiling} {flavor.name}"
        refusing.refuse("exceeds_maximum", "gpus", message, ceiling)


def _check_node(spec: JobSpec, maxima: NodeMaxima | None, refusing: Refusing) -> None:
    """Refuse what no node has. A fleet whose nodes have not reported yet refuses nothing."""
    if maxima is None:
        return
    asked = (
        ("gpus", "GPUs", spec.gpus, maxima.devices),
        ("cpu_milli", "milli-CPU", spec.cpu_milli, maxima.cpu_milli),
        ("memory_bytes", "bytes", spec.memory_bytes, maxima.memory_bytes),
    )
    for field, unit, wanted, most in asked:
        if wanted > most:
            refusing.refuse("exceeds_maximum", field, f"a replica asks for {wanted} {unit}, the largest node has {most}", most)
    shares_node = not refusing.gangs_span_nodes or spec.within in (Within.NODE, Within.ISLAND)
    for _, unit, wanted, most in asked:
        if shares_node and wanted * spec.replicas > most:
            message = f"{spec.replicas} x {wanted} {unit}, and all replicas of a job share one node: the largest has {most}"
            refusing.refuse("exceeds_maximum", "replicas", message, most // wanted)


def _check_ceiling(wanted: int, resource: str, field: str, tenant: TenantCatalog, refusing: Refusing) -> None:
    ceiling = tenant.ceilings.get(resource)
    if ceiling is not None and wanted > ceiling:
        message = f"all replicas ask for {wanted}, but the tenant's quota could give at most {ceiling}"
        refusing.refuse("exceeds_maximum", field, message, ceiling)
