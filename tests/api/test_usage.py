from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import pytest

from tests.support.api import Agent, Api, Caller

HEADERS = ["tenant", "project", "user", "flavor", "job_id", "leases", "milli_gpu_ms", "amount_units", "currency", "amount"]


async def ran(api: Api, agent: Agent, caller: Caller, *, gpus: int = 1, project: str = "default") -> str:
    """Let a job run to its end and be rated; return its identifier."""
    job = await caller.submit(gpus=gpus, project=project)
    await api.schedule()
    lease_id = (await agent.leases())[-1]["lease_id"]
    await agent.see("started", "exited", "gone", lease=lease_id, data={"exit_code": 0})
    await api.schedule()
    await api.rate()
    return str(job["id"])


@pytest.fixture
async def two(api: Api) -> tuple[Agent, Caller, Caller]:
    """A node, and members of acme and globex."""
    for name in ("acme", "globex"):
        await api.tenant(name)
    return await api.node(), await api.user("member", name="ada"), await api.user("member", tenant="globex", name="hank")


def total(report: dict[str, Any]) -> tuple[int, int]:
    """Return what a report adds up to."""
    return report["total_milli_gpu_ms"], report["total_amount_units"]


async def test_report_equals_its_proof_and_its_rows_add_up(api: Api, two: tuple[Agent, Caller, Caller]) -> None:
    agent, ada, hank = two
    for caller, gpus in ((ada, 1), (hank, 2), (ada, 3)):
        await ran(api, agent, caller, gpus=gpus)

    report = await api.operator.fetch("/v1/usage", params={"by": "tenant,user,job"})

    check = report["check"]
    assert check["is_equal"]
    assert (check["leases"], check["unrated_leases"], check["open_leases"]) == (3, 0, 0)
    assert total(report) == (check["lease_milli_gpu_ms"], check["lease_amount_units"])
    assert total(report) == (check["line_milli_gpu_ms"], check["line_amount_units"])
    assert total(report) == tuple(sum(row[name] for row in report["rows"]) for name in ("milli_gpu_ms", "amount_units"))
    assert [(row["tenant"], row["user"], row["leases"]) for row in report["rows"]] == [
        ("acme", "ada", 1), ("acme", "ada", 1), ("globex", "hank", 1),
    ]  # fmt: skip


async def test_reports_of_tenants_add_up_to_the_report_of_all(api: Api, two: tuple[Agent, Caller, Caller]) -> None:
    agent, ada, hank = two
    await ran(api, agent, ada)
    await ran(api, agent, hank, gpus=2)

    window = {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}
    whole, acme, globex = [await caller.fetch("/v1/usage", params=window) for caller in (api.operator, ada, hank)]
    one = await api.operator.fetch("/v1/usage", params=window | {"tenant": "globex"})

    assert total(whole) == tuple(sum(pair) for pair in zip(total(acme), total(globex), strict=True))
    assert one == globex
    assert {row["tenant"] for row in acme["rows"]} == {"acme"}


async def test_window_without_usage_is_empty_and_proven(api: Api, two: tuple[Agent, Caller, Caller]) -> None:
    agent, ada, _ = two
    await ran(api, agent, ada)

    report = await ada.fetch("/v1/usage", params={"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z"})

    assert (report["rows"], total(report), report["check"]["is_equal"]) == ([], (0, 0), True)
    assert (report["start"], report["end"]) == ("2020-01-01T00:00:00.000Z", "2020-02-01T00:00:00.000Z")


async def test_lease_that_still_runs_is_counted_and_not_charged(api: Api, two: tuple[Agent, Caller, Caller]) -> None:
    _, ada, _ = two
    await ada.submit()
    await api.schedule()

    report = await ada.fetch("/v1/usage")

    assert (report["rows"], report["check"]["open_leases"], report["check"]["is_equal"]) == ([], 1, True)


async def test_table_for_a_spreadsheet_says_the_same(api: Api, two: tuple[Agent, Caller, Caller]) -> None:
    agent, ada, _ = two
    job_id = await ran(api, agent, ada, gpus=2)
    window = {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z", "by": "project,job"}

    report = await ada.fetch("/v1/usage", params=window)
    answer = await ada.get("/v1/usage", params=window, headers={"Accept": "text/csv"})

    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert list(row) == HEADERS
    assert (row["project"], row["job_id"], row["tenant"]) == ("default", job_id, "")
    assert (int(row["milli_gpu_ms"]), int(row["amount_units"])) == total(report)
    assert row["amount"] == f"{report['total_amount_units'] / 1_000_000:.6f}"


async def test_no_groups_is_one_line(api: Api, two: tuple[Agent, Caller, Caller]) -> None:
    agent, ada, _ = two
    await ran(api, agent, ada)
    await ran(api, agent, ada)

    report = await ada.fetch("/v1/usage", params={"by": ""})

    assert [(row["tenant"], row["leases"]) for row in report["rows"]] == [(None, 2)]


async def test_reports_at_once_agree(api: Api, two: tuple[Agent, Caller, Caller]) -> None:
    agent, ada, _ = two
    await ran(api, agent, ada)
    window = {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}

    reports = await asyncio.gather(*(ada.fetch("/v1/usage", params=window) for _ in range(5)))

    assert all(report == reports[0] for report in reports)
