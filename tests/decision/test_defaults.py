"""The defaults are promises: docs/scenario.md names them."""

from __future__ import annotations

from dataclasses import asdict

from domain.slices import DeviceHealth, DeviceMode
from quotas.amount import UNLIMITED, Amount, add, is_unlimited, smaller, subtract
from quotas.tree import Fungibility, Preemption
from scheduler.decision.nodes import Device, Node
from scheduler.decision.snapshot import Policy


def test_policy() -> None:
    assert asdict(Policy()) == {
        "fair_sharing": True,
        "fair_share_half_life_ms": 604_800_000,
        "backfill_depth": 100,
        "min_runtime_ms": 0,
        "preemption_grace_ms": 0,
        "victims": "least_lost",
        "default_limit_ms": 86_400_000,
        "nomination_timeout_ms": 60_000,
        "placement": "fragmentation",
        "forecast_depth": 100,
        "spans_nodes": True,
        "preemptions_per_hour": None,
    }


def test_nodes_and_devices() -> None:
    assert Node("n", "s") == Node("n", "s", "", None, (), 0, 0, True, {}, ())
    assert Device(0, "h200") == Device(0, "h200", DeviceMode.WHOLE, DeviceHealth.HEALTHY, 1000, 0)


def test_tenants_take_nothing_and_borrow_on_their_first_flavor() -> None:
    values = [*asdict(Preemption()).values(), *asdict(Fungibility()).values()]
    assert values == ["never", "never", "never", None, "borrow", "try_next_flavor"]


def test_unlimited_is_a_bound_of_its_own() -> None:
    assert [is_unlimited(amount) for amount in (UNLIMITED, Amount(UNLIMITED - 1))] == [True, False]
    assert UNLIMITED < 1 << 63, "still a 64-bit integer"
    assert add(UNLIMITED, UNLIMITED) == add(Amount(0), UNLIMITED) == subtract(UNLIMITED, UNLIMITED) == UNLIMITED
    assert smaller(Amount(3), UNLIMITED) == smaller(UNLIMITED, Amount(3)) == 3
