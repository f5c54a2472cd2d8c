"""What events do to the world: nodes come and go, devices fail, quotas change.

Owns the meaning of each event of the format. Returns the jobs that lost their lease, whose requeueing is the caller's.
A failed node evicts its jobs; a drained one keeps them until they end. `recover` brings back the node and its failed devices.
"""

from __future__ import annotations

from scheduler.decision.snapshot import RunningJob
from scheduler.sim.scenario import EventPart
from scheduler.sim.world import World


def apply(world: World, event: EventPart) -> list[RunningJob]:
    """Change the world and return the evicted jobs, already stopped, in order of arrival."""
    if event.quota is not None:
        world.change_quota(event.quota.tenant, event.quota.by_resource())
        return []
    evicted: list[RunningJob] = []
    if event.drain is not None:
        world.flags[event.drain].is_drained = True
    elif event.undrain is not None:
        world.flags[event.undrain].is_drained = False
    elif event.fail is not None:
        world.flags[event.fail].is_failed = True
        evicted = [job for job in world.running.values() if event.fail in job.nodes]
    elif event.recover is not None:
        world.flags[event.recover].is_failed = False
        world.flags[event.recover].failed_devices.clear()
    elif event.device_fail is not None:
        node, _, index = event.device_fail.rpartition("/")
        world.flags[node].failed_devices.add(int(index))
        place = (node, int(index))
        evicted = [job for job in world.running.values() if place in {(piece.node, piece.device_index) for piece in job.slices}]
    for job in sorted(evicted, key=lambda job: job.seq):
        world.stop(job.job)
    world.change_nodes()
    return sorted(evicted, key=lambda job: job.seq)
