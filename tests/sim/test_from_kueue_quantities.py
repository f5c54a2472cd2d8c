"""Quantities: every form that Kubernetes writes is read exactly, and nothing else."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.sim import kueue_quantity, reading
from tests.sim.kueue_manifests import GPU, converted, flavor, group, notes, queue


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (4, Fraction(4)), ("4", Fraction(4)), ("+4", Fraction(4)), (0.1, Fraction(1, 10)), ("1.5", Fraction(3, 2)), (".5", Fraction(1, 2)),
        ("5.", Fraction(5)), ("500m", Fraction(1, 2)), ("1u", Fraction(1, 10**6)), ("1n", Fraction(1, 10**9)), ("2k", Fraction(2000)),
        ("36G", Fraction(36 * 10**9)), ("36Gi", Fraction(36 * 2**30)), ("1Ki", Fraction(1024)), ("0.5Mi", Fraction(2**19)),
        ("1E", Fraction(10**18)), ("1Ei", Fraction(2**60)), ("1e3", Fraction(1000)), ("1E-3", Fraction(1, 1000)), ("12E+2", Fraction(1200)),
    ],
)  # fmt: skip
def test_quantity_is_read_exactly(written: Any, expected: Fraction) -> None:
    assert kueue_quantity.parse(written) == expected


@pytest.mark.parametrize(
    "written", ["", "m", "1K", "1KiB", "1 Gi", "4 ", "0x4", "1e", "e3", "1e1m", "٤", "nan", float("inf"), "1e65", "9" * 65, True, None, [4]]
)
def test_everything_else_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a quantity|exponent"):
        kueue_quantity.parse(written)


@given(st.integers(0, 10**18), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi", "e-3", "e2"]))
def test_cpus_come_out_in_thousandths_rounded_up(number: int, suffix: str) -> None:
    quantity = kueue_quantity.parse(f"{number}{suffix}")
    count = kueue_quantity.CPU.count(quantity)
    assert count - 1 < quantity * 1000 <= count
    assert kueue_quantity.CPU.is_exact(quantity) == (quantity * 1000 == count)


@given(st.integers(0, 2**53))
def test_bytes_survive_the_way_through_the_file(size_bytes: int) -> None:
    gib = kueue_quantity.MEMORY.number(size_bytes)
    text = f"scenario: 1\ntenants: [{{name: a, quota: {{memory_gib: {{nominal: {gib!r}}}}}}}]"
    assert reading.read(text).tenants[0].quota.by_resource()["memory"].nominal == size_bytes


def test_what_is_finer_than_a_scenario_is_rounded_up_and_said() -> None:
    parts = [flavor(), queue("a", group({"h200": {GPU: "1500500u"}}))]
    assert converted(*parts)["tenants"][0]["quota"] == {"h200": {"nominal": 1.501}}
    where = "spec.resourceGroups[0].flavors[0].resources[0].nominalQuota"
    assert notes(*parts) == [f"all.yaml: document 2 (ClusterQueue a): {where}: is finer than a scenario can say: rounded up to 1.501"]


def test_what_is_larger_than_a_scenario_is_unlimited_and_said() -> None:
    limits = {"nominalQuota": "1E", "borrowingLimit": "2E", "lendingLimit": "1E"}
    parts = [flavor(), queue("a", group({"h200": {GPU: limits}}), cohort="c")]
    assert converted(*parts)["tenants"][0]["quota"] == {"h200": {"nominal": None, "borrow": None, "lend": None}}
    assert len(notes(*parts)) == 3
