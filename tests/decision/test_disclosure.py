"""A tenant reads of a reason what is its own, and only numbers of others."""

from __future__ import annotations

from domain.reasons import Reason, ReasonCode, Unblock
from scheduler.decision.disclosure import Disclosure
from tests.decision.world import HOUR_MS, World


def world() -> World:
    """Two tenants with a running job each, and a capacity reservation of one of them."""
    made = World()
    made.node("a", gpus=4)
    made.tenant("x", 2)
    made.tenant("y", 2)
    return made


def test_victims_of_others_are_counted_and_own_ones_named() -> None:
    made = world()
    mine, theirs = made.runs({"a": [0]}, tenant="x"), made.runs({"a": [1]}, tenant="y")
    reason = Reason(ReasonCode.WAITING_FOR_PREEMPTED, {"victims": [mine, theirs, "gone"], "held_until_ms": 5}, Unblock.ANY_JOB_ENDS)

    told = Disclosure(made.snapshot()).of(reason, "x")

    assert (told.code, told.data) == (reason.code, {"victims": [mine], "victims_of_others": 2, "held_until_ms": 5})


def test_reservation_is_named_to_its_own_tenant_only() -> None:
    made = world()
    made.reserve("contest", 2, tenant="y", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    reason = Reason(ReasonCode.CAPACITY_RESERVED, {"capacity_reservation": "contest", "limit_ms": 1}, Unblock.RESERVATION_ENDS)
    disclosure = Disclosure(made.snapshot())

    assert disclosure.of(reason, "x").data == {"capacity_reservation": None, "limit_ms": 1}
    assert disclosure.of(reason, "y").data == reason.data


def test_reason_that_names_nobody_stays_as_it_is() -> None:
    reason = Reason(ReasonCode.QUOTA_EXCEEDED, {"needed_milli_gpu": 1_000}, Unblock.OWN_JOB_ENDS)

    assert Disclosure(world().snapshot()).of(reason, "x") is reason
