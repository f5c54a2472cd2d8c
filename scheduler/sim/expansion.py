"""What a scenario's short forms stand for: counts become names, sites and dependencies become lists.

Owns the expansion that references.py checks and world.py builds from, so that both mean the same. Works on validated fields
only; raises nothing of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from scheduler.sim.scenario import RunningPart, Scenario, WorkPart


def names(name: str, count: int | None) -> Iterator[str]:
    """Yield NAME-0, NAME-1 and so on; a count of 1 or none keeps the name."""
    if count is None or count == 1:
        yield name
    else:
        yield from (f"{name}-{at}" for at in range(count))


def sites(part: WorkPart) -> tuple[str, ...]:
    """Return the sites that a job accepts; empty means all."""
    if part.site is not None:
        return (part.site,)
    return part.sites or ()


def named_devices(part: RunningPart) -> Iterator[tuple[str, str, int | None]]:
    """Yield (field, node, device) for every place that a running job names; the device is None for a bare node."""
    if part.node is not None:
        yield "node", part.node, None
        for device in part.devices or ():
            yield "devices", part.node, device
    for at, piece in enumerate(part.slices or ()):
        yield f"slices[{at}]", piece.node, piece.device


def resolve(name: str, scenario: Scenario, jobs: Collection[str]) -> list[str]:
    """Return the jobs that a dependency names: one job, or all of an entry with a count."""
    if name in jobs:
        return [name]
    return [each for part in scenario.jobs if part.id == name for each in names(part.id, part.count)]


def dependencies(scenario: Scenario) -> dict[str, tuple[str, ...]]:
    """Return, for each queued job that depends on others, their ids."""
    if not any(part.depends_on for part in scenario.jobs):
        return {}
    known = {part.id for part in scenario.running} | {name for part in scenario.jobs for name in names(part.id, part.count)}
    found = {}
    for part in scenario.jobs:
        if part.depends_on:
            wanted = tuple(dict.fromkeys(each for name in part.depends_on for each in resolve(name, scenario, known)))
            for job in names(part.id, part.count):
                found[job] = wanted
    return found


def first_in_a_ring(graph: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return a job that depends on itself, directly or through others, or None."""
    done: set[str] = set()
    for start in graph:
        stack: list[tuple[str, Iterator[str]]] = [(start, iter(graph[start]))] if start not in done else []
        open_jobs = {start}
        while stack:
            job, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                open_jobs.discard(job)
                done.add(job)
            elif following in open_jobs:
                return following
            elif following in graph and following not in done:
                open_jobs.add(following)
                stack.append((following, iter(graph[following])))
    return None
