"""What holds for every conversion: the scenario is valid, and its made-up nodes never refuse what quota allows."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.reasons import ReasonCode
from scheduler.sim import kueue, reading
from scheduler.sim.answers import answer
from scheduler.sim.world import World
from tests.sim.kueue_manifests import GPU, admitted, flavor, group, manifest, pods, queue, thing, workload

QUOTA_REASONS = {ReasonCode.QUOTA_EXCEEDED, ReasonCode.BORROWING_LIMIT, ReasonCode.EXCEEDS_MAXIMUM, ReasonCode.NOT_PERMITTED}
FLAVORS = ("h200", "cpu", "l40s")
HOURS = st.integers(0, 23).map(lambda hour: f"2026-03-01T{hour:02}:30:00Z")


@st.composite
def amounts(draw: st.DrawFn, *, has_parent: bool, largest: int = 40) -> dict[str, Any]:
    nominal = draw(st.integers(0, largest))
    found: dict[str, Any] = {"nominalQuota": draw(st.sampled_from([nominal, str(nominal), f"{nominal}000m"]))}
    if has_parent and draw(st.booleans()):
        found["borrowingLimit"] = draw(st.integers(0, largest))
    if has_parent and draw(st.booleans()):
        found["lendingLimit"] = draw(st.integers(0, nominal))
    return found


@st.composite
def groups(draw: st.DrawFn, *, has_parent: bool) -> list[dict[str, Any]]:
    resources = draw(st.sampled_from([[GPU], [GPU, "cpu"], ["cpu"], [GPU, "cpu", "memory", "pods"]]))
    names = draw(st.lists(st.sampled_from(FLAVORS), min_size=1, max_size=3, unique=True))
    first = group({name: {resource: draw(amounts(has_parent=has_parent)) for resource in resources} for name in names})
    second = group({"net": {"example.com/rdma": draw(amounts(has_parent=has_parent))}})
    return [first, second] if draw(st.booleans()) else [first]


@st.composite
def fleets(draw: st.DrawFn) -> list[Any]:
    """Return manifests that Kueue would take: cohorts in a chain, queues in them, workloads that run and wait."""
    parts: list[Any] = [flavor(name) for name in draw(st.lists(st.sampled_from(FLAVORS), unique=True))]
    cohorts = draw(st.integers(0, 3))
    for at in range(cohorts):
        has_parent = at > 0
        spec = {"resourceGroups": draw(groups(has_parent=has_parent)) if draw(st.booleans()) else []}
        parts.append(thing("Cohort", f"c{at}", spec | ({"parentName": f"c{at - 1}"} if has_parent else {})))
    names = [f"q{at}" for at in range(draw(st.integers(1, 3)))]
    for name in names:
        cohort = draw(st.sampled_from([None, *(f"c{at}" for at in range(cohorts)), *names]))
        parts.append(queue(name, *draw(groups(has_parent=cohort is not None)), cohort=cohort))
    for at in range(draw(st.integers(0, 8))):
        name = draw(st.sampled_from(names))
        sets = [
            pods(
                draw(st.integers(0, 12)), pod_set, gpu=draw(st.sampled_from([0, 1, 8, "2", 40])), cpu=draw(st.sampled_from([0, "1500m", 4]))
            )
            for pod_set in ("main", "p1")[: draw(st.integers(1, 2))]
        ]
        status = draw(st.none() | st.builds(admitted, st.just(name), HOURS, *[st.sampled_from(FLAVORS)] * len(sets)))
        priority = {"priority": draw(st.integers(-5, 5))} if draw(st.booleans()) else {}
        parts.append(workload(f"w{at}", *sets, queue=name, created=draw(HOURS | st.just("")), status=status, **priority))
    return parts


@settings(max_examples=60, deadline=None)
@given(fleets(), st.sampled_from([GPU, "cpu", "amd.com/gpu"]))
def test_every_conversion_is_a_valid_scenario(parts: list[Any], gpu_resource: str) -> None:
    text = kueue.to_yaml(kueue.convert({"all.yaml": manifest(*parts)}, gpu_resource=gpu_resource).scenario)
    scenario, problems = reading.examine(text)
    assert problems == []
    assert scenario is not None
    World(scenario)  # and its running jobs find their places


@settings(max_examples=60, deadline=None)
@given(fleets())
def test_nodes_never_refuse_what_quota_allows(parts: list[Any]) -> None:
    found = answer(reading.read(kueue.to_yaml(kueue.convert({"all.yaml": manifest(*parts)}).scenario)))
    assert {ReasonCode(item["code"]) for item in found["waiting"]} <= QUOTA_REASONS


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 256), st.integers(1, 60)), min_size=1, max_size=8))
def test_nodes_of_a_large_fleet_have_room_for_gangs_of_every_size(sizes: list[tuple[int, int]]) -> None:
    jobs = [workload(f"w{at}", pods(count, gpu=gpus)) for at, (gpus, count) in enumerate(sizes)]
    quota = sum(gpus * count for gpus, count in sizes)
    scenario = kueue.convert({"all.yaml": manifest(queue("a", group({"h200": {GPU: quota}})), *jobs)}).scenario
    assert answer(reading.read(kueue.to_yaml(scenario)))["waiting"] == []


@settings(max_examples=30, deadline=None)
@given(fleets())
def test_same_manifests_give_the_same_text_in_any_order_of_workloads(parts: list[Any]) -> None:
    jobs = [part for part in parts if isinstance(part, dict) and part["kind"] == "Workload"]
    others = [part for part in parts if part not in jobs]
    found, turned = (kueue.convert({"all.yaml": manifest(*others, *order)}).scenario for order in (jobs, jobs[::-1]))
    assert kueue.to_yaml(found) == kueue.to_yaml(turned)
