"""Open observations -> changes, in order for each lease, each counted once.

Takes one observation per lease and round, because what follows from the second depends on what the first did. Progress reports in a row are
one: only the newest matters. A change that the store dropped, because a cancel came in between, stays open and ends the rounds: the next
cycle reads it again, before what came after it. Called by the loop; the choice itself is transitions.follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scheduler.service import transitions
from store.engine import Store
from store.leader import Fence
from store.leases import ApplyChanges, Change, OpenLease, OpenLeases
from store.observations import BATCH_MAXIMUM, OpenObservations, Seen, SetAside

ROUNDS_MAXIMUM = 50


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch: changes and marks made, whether nothing reported by then is left to apply, and the jobs concerned."""

    count: int
    is_caught_up: bool
    job_ids: frozenset[str] = frozenset()


async def apply_observations(store: Store, fence: Fence, *, now_ms: int) -> Applied:
    """Apply what is waiting, at most one batch and `ROUNDS_MAXIMUM` rounds."""
    waiting = list(await store.read(OpenObservations()))
    is_all = len(waiting) < BATCH_MAXIMUM
    count = 0
    touched: set[str] = set()
    for _ in range(ROUNDS_MAXIMUM):
        if not waiting:
            break
        rounds, waiting = next_round(waiting)
        leases = {
            lease.id: lease for lease in await store.read(OpenLeases(sorted({item.lease_id for item in _flat(rounds) if item.lease_id})))
        }
        changes, aside = split(rounds, leases, now_ms=now_ms)
        if aside:
            await store.run(SetAside(fence, aside, now_ms))
        applied = await store.run(ApplyChanges(fence, changes, now_ms)) if changes else 0
        count += len(aside) + applied
        touched.update(leases[change.lease_id].job_id for change in changes)
        if applied < len(changes):
            return Applied(count, is_caught_up=False, job_ids=frozenset(touched))
    return Applied(count, is_caught_up=is_all and not waiting, job_ids=frozenset(touched))


def next_round(waiting: Sequence[Seen]) -> tuple[list[list[Seen]], list[Seen]]:
    """Return (runs, rest): of each lease its first observation, or its first progress reports in a row.

    Those without a lease are all taken.
    """
    runs: dict[str, list[Seen]] = {}
    closed: set[str] = set()
    taken: list[list[Seen]] = []
    rest: list[Seen] = []
    for item in waiting:
        if item.lease_id is None:
            taken.append([item])
        elif item.lease_id not in runs:
            runs[item.lease_id] = [item]
            taken.append(runs[item.lease_id])
        elif item.lease_id not in closed and item.kind == "progress" and _may_be_skipped(runs[item.lease_id][-1]):
            runs[item.lease_id].append(item)
        else:
            closed.add(item.lease_id)
            rest.append(item)
    return taken, rest


def _may_be_skipped(seen: Seen) -> bool:
    """Tell whether a newer progress report says all that this one says: not when it tells of a checkpoint."""
    return seen.kind == "progress" and seen.data.get("checkpoint") is not True


def split(runs: Sequence[Sequence[Seen]], leases: dict[str, OpenLease], *, now_ms: int) -> tuple[list[Change], list[Seen]]:
    """Return (changes of open leases, observations that change none: of released leases, and of devices)."""
    changes: list[Change] = []
    aside: list[Seen] = []
    for run in runs:
        lease = leases.get(run[0].lease_id or "")
        if lease is None or run[0].kind == "device_health":
            aside.extend(run)
            continue
        change = transitions.follow(lease, run[-1], now_ms=now_ms)
        changes.append(replace(change, observation_ids=tuple(item.id for item in run)))
    return changes, aside


def _flat(runs: Sequence[Sequence[Seen]]) -> list[Seen]:
    return [item for run in runs for item in run]
