"""Every reason of the service has a sentence with its numbers, and a newer service's codes are shown as they come."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.reasons import ReasonCode, Unblock
from terrace import reasons
from terrace.models.jobs import ForecastAnswer

NOW = datetime(2026, 11, 25, 10, 0, tzinfo=UTC)
GANG = {
    "replicas": 2, "gpu_model": "h200", "gpus_per_replica": 4, "needed_gpus": 8, "free_gpus": 9, "largest_free_block_gpus": 3,
    "nodes_with_free_gpus": 4,
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("in_utc")


def test_the_table_has_exactly_the_services_codes() -> None:
    assert list(reasons.SENTENCES) == [code.value for code in ReasonCode]


def test_the_table_has_exactly_the_services_unblocking_events() -> None:
    assert list(reasons.UNBLOCKING) == [event.value for event in Unblock]


CASES: dict[str, tuple[str, Mapping[str, Any], str]] = {
    "quota in GPUs": (
        "quota_exceeded",
        {"resource": "h200", "needed_milli_gpu": 2_000, "available_milli_gpu": 1_000, "used_milli_gpu": 2_000, "nominal_milli_gpu": 3_000},
        "Its tenant holds 2 h200 of a quota of 3 h200. This job needs 2 h200, and 1 h200 may still be taken.",
    ),
    "quota in CPUs, unlimited nominal": (
        "quota_exceeded",
        {"resource": "cpu", "needed_cpu_milli": 4_500, "available_cpu_milli": 500, "used_cpu_milli": 64_000, "nominal_cpu_milli": None},
        "Its tenant holds 64 CPUs. This job needs 4.5 CPUs, and 0.5 CPUs may still be taken.",
    ),
    "borrowing": (
        "borrowing_limit",
        {"resource": "h200", "needed_milli_gpu": 4_000, "available_milli_gpu": 500, "used_milli_gpu": 2_000, "nominal_milli_gpu": 1_000},
        "Its tenant holds 2 h200 of a quota of 1 h200."
        " This job needs 4 h200, and 0.500 h200 may still be taken before the borrowing limit.",
    ),
    "more than the quota can give": (
        "exceeds_maximum",
        {"limit": "quota", "resource": "memory", "needed_memory_bytes": 64 << 30, "maximum_memory_bytes": 32 << 30},
        "It asks for 64 GiB of memory; its quota, with all borrowing, can never give more than 32 GiB of memory.",
    ),
    "more than the fleet has": (
        "exceeds_maximum",
        {"limit": "fleet", "replicas": 3, "maximum_replicas": 1, "gpus_per_replica": 8, "largest_node_gpus": 8},
        "It asks for 3 replicas of 8 GPUs; the fleet, standing empty, has room for 1 such replicas, and its largest node has 8.",
    ),
    "too few free": (
        "no_capacity",
        {**GANG, "free_gpus": 5},
        "It needs 8 h200 at once (2 replicas of 4); 5 h200 are free now.",
    ),
    "no memory": (
        "no_capacity",
        {"replicas": 1, "memory_bytes_per_replica": 32 << 30, "largest_free_memory_bytes": 16 << 30},
        "No node has enough CPU or memory free. A replica needs 32 GiB of memory, at most 16 GiB are free on one node.",
    ),
    "scattered": (
        "fragmented",
        GANG,
        "It needs 8 h200 at once (2 replicas of 4). 9 h200 are free, but scattered over 4 nodes; the largest free block is 3.",
    ),
    "two sites": (
        "topology",
        GANG,
        "It needs 8 h200 at once (2 replicas of 4). Enough h200 are free, but not on one site, and a job never spans two.",
    ),
    "set aside later": (
        "capacity_reserved",
        {
            "capacity_reservation": None,
            "starts_ms": 1_800_000_000_000,
            "ends_ms": 1_800_003_600_000,
            "limit_ms": 7_200_000,
            "longest_limit_ms": 3_600_000,
        },
        "What it needs is set aside by a capacity reservation from 2027-01-15 08:00:00 to 2027-01-15 09:00:00."
        " A time limit of at most 1 h would fit before it.",
    ),
    "maintenance now": (
        "capacity_reserved",
        {"maintenance": "firmware", "starts_ms": 1_800_000_000_000, "ends_ms": 1_800_003_600_000, "limit_ms": 7_200_000},
        "What it needs is set aside by a maintenance of nodes from 2027-01-15 08:00:00 to 2027-01-15 09:00:00.",
    ),
    "others leave for it": (
        "waiting_for_preempted",
        {"victims": ["job_a"], "victims_of_others": 2, "releases_by_ms": 1_800_000_000_000, "held_until_ms": 1_800_000_060_000},
        "3 jobs are being stopped for it and gone by 2027-01-15 08:00:00 at the latest.",
    ),
    "one other leaves for it": (
        "waiting_for_preempted",
        {"victims": [], "victims_of_others": 1, "releases_by_ms": 1_800_000_000_000, "held_until_ms": 1_800_000_060_000},
        "Another job is being stopped for it and gone by 2027-01-15 08:00:00 at the latest.",
    ),
    "backfill": (
        "would_delay",
        {"limit_ms": 7_200_000, "held_from_ms": 1_795_600_800_000},
        "It would fit now, but would delay a job that comes before it, which is to start at 2026-11-25 10:00:00."
        " It may run for 2 h; a shorter limit may fit before.",
    ),
    "no quota": ("not_permitted", {"tenant": "ten_1", "flavors": ["h200", "a100"]}, "Its tenant has no quota for h200, a100."),
    "not valid": ("invalid", {"field": "gpus"}, "No decision can be made for it: its gpus is not valid."),
    "depends": ("dependency", {"depends_on": ["job_a", "job_b"]}, "It waits until job_a, job_b has succeeded."),
    "budget": (
        "budget_exhausted",
        {"spent_units": 12_000_000, "limit_units": 10_000_000, "currency": "USD"},
        "The budget that pays for it is spent. Spent: 12.00 USD of 10.00 USD.",
    ),
    "a newer service": (
        "tea_time",
        {"minutes": 5},
        "The service gives the reason tea_time (minutes 5), which this client does not know yet.",
    ),
}


@pytest.mark.parametrize(("code", "data", "words"), CASES.values(), ids=CASES)
def test_a_reason_is_told_with_its_numbers(code: str, data: Mapping[str, Any], words: str) -> None:
    assert reasons.sentence(code, data) == words


@pytest.mark.parametrize("code", reasons.SENTENCES)
def test_a_reason_without_numbers_is_still_a_sentence(code: str) -> None:
    words = reasons.sentence(code, {})
    assert words.endswith(".")
    assert "None" not in words


def test_a_forecast_says_when_how_far_away_and_how_old_it_is() -> None:
    answer = ForecastAnswer(start_at=NOW + timedelta(minutes=4, seconds=5), computed_at=NOW - timedelta(seconds=3))
    assert reasons.forecast(answer, NOW) == "Expected to start at 2026-11-25 10:04:05 (in 4 min 5 s; computed 3 s ago)."


def test_a_forecast_beyond_the_horizon_is_a_lower_bound() -> None:
    answer = ForecastAnswer(not_before=NOW + timedelta(hours=2))
    assert reasons.forecast(answer, NOW) == "It cannot start before 2026-11-25 12:00:00 (in 2 h)."


def test_a_forecast_that_has_passed_is_due() -> None:
    assert "now due" in reasons.forecast(ForecastAnswer(start_at=NOW), NOW)


def test_without_a_forecast_there_is_none() -> None:
    assert {reasons.forecast(None, NOW), reasons.forecast(ForecastAnswer(), NOW)} == {"No forecast yet."}
