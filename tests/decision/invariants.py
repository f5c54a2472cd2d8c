"""What must always be true of a plan (design.md section 4), stated without the code that makes plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.slices import Slice
from scheduler.decision.plan import Plan, Start
from scheduler.decision.snapshot import CapacityReservation, Node, Nomination, Snapshot, model_of, usage_of


def verify(snapshot: Snapshot, plan: Plan) -> None:
    """Assert the invariants of the design that a plan can break."""
    pending = {job.job: (item.key, job) for item in snapshot.classes for job in item.jobs}
    started = [start.job for start in plan.starts]
    assert len(set(started)) == len(started), "a job starts twice"
    held = {(piece.node, piece.device_index) for job in snapshot.running for piece in job.slices}
    verify_preemptions(snapshot, plan)
    verify_windows(snapshot, plan)
    verify_caps(snapshot, plan)
    tree = snapshot.tree.copy()
    nodes = {node.name: node for node in snapshot.nodes}
    for start in plan.starts:
        key, job = pending[start.job]
        assert start.attempt == job.attempt
        assert len(start.slices) == key.shape.slices, "a gang has not all its slices"
        assert len(start.nodes) == key.shape.replicas
        assert len({nodes[name].site for name in start.nodes}) == 1, "a gang spans sites"
        for piece in start.slices:
            assert start.nodes[piece.replica] == piece.node, "a replica is split over nodes"
            assert (piece.node, piece.device_index) not in held, "a slice is given twice"
            assert piece.device_index < len(nodes[piece.node].devices)
            held.add((piece.node, piece.device_index))
        assert all(nodes[name].is_schedulable for name in start.nodes)
        usage = usage_of(key.shape, model_of(start.flavor, snapshot.flavors))
        for resource, wanted in usage.items():
            assert not tree.governs(key.tenant, resource) or wanted <= tree.available(key.tenant, resource), "over quota"
        tree.add(key.tenant, usage)
    _verify_machines(snapshot, plan, nodes)
    answered = {item.class_key for item in plan.reasons}
    assert len(answered) == len(plan.reasons), "a class has two reasons"
    assert all(key in answered for name, (key, _) in pending.items() if name not in started), "a waiting job has no reason"


def verify_preemptions(snapshot: Snapshot, plan: Plan) -> None:
    """Assert that only those leave who may, once, for somebody who is nominated, and that nominations will fit."""
    running = {job.job: job for job in snapshot.running}
    victims = [item.job for item in plan.preemptions]
    assert len(set(victims)) == len(victims), "a job is a victim twice"
    for name in victims:
        victim = running[name]
        assert victim.is_preemptible, f"{name} is not preemptible"
        assert not victim.is_leaving, f"{name} was told to leave before"
        assert snapshot.now_ms - victim.started_ms >= snapshot.policy.min_runtime_ms, f"{name} is too young"
    nominated = {item.job for item in plan.nominations}
    assert len(nominated) == len(plan.nominations), "a job is nominated twice"
    assert {item.beneficiary for item in plan.preemptions} <= nominated, "somebody leaves for nobody"
    pending = {job.job: item.key for item in snapshot.classes for job in item.jobs}
    stays = [job for job in snapshot.running if not job.is_leaving and job.job not in victims]
    held = [(piece.node, piece.device_index) for job in stays for piece in job.slices]
    begins: list[Start | Nomination] = [*plan.starts, *plan.nominations]
    held += [(piece.node, piece.device_index) for item in begins for piece in item.slices]
    assert len(set(held)) == len(held), "a slice is given or promised twice"
    tree = snapshot.tree.copy()
    for job in snapshot.running:
        if job.is_leaving or job.job in victims:
            tree.remove(job.tenant, usage_of(job.shape, model_of(job.flavor, snapshot.flavors)))
    for item in begins:
        key = pending[item.job]
        usage = usage_of(key.shape, model_of(item.flavor, snapshot.flavors))
        assert len(item.slices) == key.shape.slices
        for resource, wanted in usage.items():
            assert not tree.governs(key.tenant, resource) or wanted <= tree.available(key.tenant, resource), "over quota later"
        tree.add(key.tenant, usage)


def verify_windows(snapshot: Snapshot, plan: Plan) -> None:
    """Assert that starts leave every coming or open capacity reservation its devices, as far as it had them, and maintenance its nodes."""
    pending = {job.job: item.key for item in snapshot.classes for job in item.jobs}
    for window in snapshot.maintenance_windows:
        for start in plan.starts:
            reaches = snapshot.now_ms < window.end_ms and window.start_ms < snapshot.now_ms + pending[start.job].limit_ms
            assert not (reaches and set(start.nodes) & set(window.nodes)), f"{start.job} starts into maintenance"
    for item in snapshot.capacity_reservations:
        if item.end_ms <= snapshot.now_ms:
            continue
        begins_ms = max(item.start_ms, snapshot.now_ms + 1)
        running = [(job.tenant, job.ends_ms(snapshot.now_ms), job.slices) for job in snapshot.running]
        # A nominated place was promised when the window had others in view; whoever waits for it gets it.
        promised = {nomination.job for nomination in snapshot.nominations}
        free_starts = [start for start in plan.starts if start.job not in promised]
        starting = [(pending[start.job].tenant, snapshot.now_ms + pending[start.job].limit_ms, start.slices) for start in free_starts]
        before = _left_for(snapshot, item, running, begins_ms)
        after = _left_for(snapshot, item, running + starting, begins_ms)
        others = [entry for entry in snapshot.capacity_reservations if entry.name != item.name]
        if not others:  # two reservations may share what is too little for both
            assert after >= min(before, item.milli_gpu // 1000), f"starts take the devices of {item.name}"


def _left_for(snapshot: Snapshot, item: CapacityReservation, leases: Sequence[tuple[str, int, Sequence[Slice]]], begins_ms: int) -> int:
    """Count the devices that nobody but the reservation's tenant holds when it begins."""
    held = {
        (piece.node, piece.device_index)
        for tenant, ends_ms, slices in leases
        for piece in slices
        if ends_ms > begins_ms and not (tenant in snapshot.tree and item.tenant in snapshot.tree.path(tenant))
    }
    closed = {name for window in snapshot.maintenance_windows for name in window.nodes}
    return sum(
        (node.name, device.index) not in held
        for node in snapshot.nodes
        if node.gpu_model == item.flavor and node.is_schedulable and node.name not in closed
        for device in node.devices
    )


def verify_caps(snapshot: Snapshot, plan: Plan) -> None:
    """Assert that no start takes a user above a cap."""
    pending = {job.job: item.key for item in snapshot.classes for job in item.jobs}
    held: dict[tuple[str, str], int] = {}
    for job in snapshot.running:
        if job.user is not None and job.tenant in snapshot.tree:
            for name in snapshot.tree.path(job.tenant):
                held[name, job.user] = held.get((name, job.user), 0) + job.shape.milli_gpu
    for start in plan.starts:
        key = pending[start.job]
        for name in snapshot.tree.path(key.tenant) if key.user is not None and key.shape.slices else ():
            cap = snapshot.tree.node(name).user_cap
            held[name, key.user or ""] = held.get((name, key.user or ""), 0) + key.shape.milli_gpu
            assert cap is None or held[name, key.user or ""] <= cap, f"{start.job} takes {key.user} above the cap"


def _verify_machines(snapshot: Snapshot, plan: Plan, nodes: Mapping[str, Node]) -> None:
    pending = {job.job: item.key for item in snapshot.classes for job in item.jobs}
    holders = [(job.shape, job.nodes) for job in snapshot.running] + [(pending[start.job].shape, start.nodes) for start in plan.starts]
    for name in {name for _, on in holders for name in on}:
        cpu = sum(shape.cpu_milli_per_replica for shape, on in holders for node in on if node == name)
        memory = sum(shape.memory_bytes_per_replica for shape, on in holders for node in on if node == name)
        assert cpu <= nodes[name].cpu_milli, f"{name}: more CPU is given than it has"
        assert memory <= nodes[name].memory_bytes, f"{name}: more memory is given than it has"
