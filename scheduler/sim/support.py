"""What the format can say and the core cannot decide yet. It is refused by the path of the field, never silently ignored.

Owns that list; an entry leaves it together with the change that makes the core able. Does not own validation: a scenario that
comes here is valid.
"""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.sim.problems import UnsupportedError
from scheduler.sim.scenario import Scenario, WorkPart


def check(scenario: Scenario) -> None:
    """Raise `UnsupportedError` with the path of the first field that the core cannot decide for."""
    for path in _unsupported(scenario):
        raise UnsupportedError(path)


def _unsupported(scenario: Scenario) -> Iterator[str]:
    policy = scenario.policy
    if policy.repack.max_moved_ratio:
        yield "policy.repack.max_moved_ratio"
    for at, node in enumerate(scenario.nodes):
        if node.mig is not None:
            yield f"nodes[{at}].mig"
    for section, parts in (("running", scenario.running), ("jobs", scenario.jobs)):
        for at, part in enumerate(parts):
            yield from (f"{section}[{at}].{field}" for field in _cut_devices(part))
    if scenario.generate:
        yield "generate[0]"


def _cut_devices(part: WorkPart) -> Iterator[str]:
    if part.slice is not None:
        yield "slice"
    if part.milli_gpu % 1000:
        yield "gpus"
