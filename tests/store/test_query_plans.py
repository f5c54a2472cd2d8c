"""The questions that are asked all the time find their rows by an index: their cost follows the work in hand, not the history.

Each is really asked, and the database is then asked how it answers the statements. PostgreSQL is told to avoid scans, because on tables as
small as these it would prefer them: what still scans has no index to use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from domain.intervals import Interval
from scheduler.decision.snapshot import Policy
from store import (
    assignments,
    events,
    executions,
    idempotency,
    identity,
    job_reads,
    leases,
    logs,
    observations,
    postgres,
    quotas,
    scheduling,
    sqlite,
    usage,
)
from store.commands import Query
from store.engine import SQLITE_PREFIX
from tests.store.world import T0_MS, World

GROWING = (
    "api_key", "attempt", "blob", "device_claim", "event", "idempotency_record", "job", "lease", "lease_node", "lease_slice", "log_chunk",
    "observation", "usage_line",
)  # fmt: skip
SCANS = re.compile(r"(?:^SCAN(?: TABLE)?|Seq Scan on) (\w+)(?P<index> USING (?:COVERING )?INDEX)?")
WINDOW = Interval(T0_MS, T0_MS + 1)

QUESTIONS = [
    pytest.param(identity.PrincipalByKey("key"), id="who speaks"),
    pytest.param(job_reads.JobWithAttempts("job_000002"), id="a job with its attempts"),
    pytest.param(job_reads.JobsPage(50, before_seq=9, tenant_id="ten_acme"), id="a page of a tenant's jobs"),
    pytest.param(job_reads.JobsPage(50, tenant_id="ten_acme", states=["running"]), id="a page of a tenant's running jobs"),
    pytest.param(job_reads.OpenJobs("ten_acme", 10), id="a tenant's open jobs"),
    pytest.param(scheduling.LoadSnapshot(T0_MS, Policy()), id="the scheduler's snapshot"),
    pytest.param(leases.OpenLeases(), id="open leases"),
    pytest.param(leases.OpenLeases(["lea_a"]), id="some open leases"),
    pytest.param(executions.ProgressOfLeases(["lea_a"]), id="progress of leases"),
    pytest.param(observations.OpenObservations(), id="open observations"),
    pytest.param(assignments.AssignmentsOfNode("a"), id="a node's assignments"),
    pytest.param(assignments.HasLeaseOf("a", "ten_acme", "sha"), id="who may read an archive"),
    pytest.param(events.EventsAfter(0, 100), id="events"),
    pytest.param(events.EventsAfter(0, 100, tenant_id="ten_acme"), id="a tenant's events"),
    pytest.param(events.EventsAfter(0, 100, job_id="job_000002"), id="a job's events"),
    pytest.param(events.NewestEvent("job_000002"), id="a job's newest event"),
    pytest.param(logs.ReadLog("job_000002", None), id="output of a job"),
    pytest.param(quotas.QuotasInForce(T0_MS, "ten_acme"), id="a tenant's quotas"),
    pytest.param(usage.LeasesToRate("USD"), id="leases to rate"),
    pytest.param(usage.UsageBetween(WINDOW, "USD"), id="a report of all"),
    pytest.param(usage.UsageBetween(WINDOW, "USD", "ten_acme"), id="a report of a tenant"),
]  # fmt: skip


@pytest.fixture
def engine(world: World) -> Iterator[Engine]:
    """A connection to a world with one job that runs and one that waits."""
    world.tenant("acme")
    world.node("a")
    world.bind(world.start(world.job(), on=[("a", 0)], lease="lea_a"))
    world.job()
    url = world.store.url
    is_sqlite = world.store.is_sqlite
    engine = sqlite.make_engine(Path(url.removeprefix(SQLITE_PREFIX)), is_writer=False) if is_sqlite else postgres.make_engine(url)
    yield engine
    engine.dispose()


def plans(engine: Engine, query: Query[Any]) -> list[str]:
    """Return the lines of the plans of all statements that `query` runs."""
    asked: list[tuple[str, Any]] = []

    def remember(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        asked.append((statement, values))

    with engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", remember)
        query.fetch(connection)
        event.remove(engine, "before_cursor_execute", remember)
        is_sqlite = engine.dialect.name == "sqlite"
        if not is_sqlite:
            connection.exec_driver_sql("SET enable_seqscan = off")
        prefix = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
        return [str(row[-1]) for statement, values in asked for row in connection.exec_driver_sql(prefix + statement, values)]


@pytest.mark.parametrize("query", QUESTIONS)
def test_question_does_not_scan_what_grows(engine: Engine, query: Query[Any]) -> None:
    lines = plans(engine, query)
    assert lines
    scans = [match for line in lines if (match := SCANS.search(line.strip()))]
    assert [match.group() for match in scans if match[1] in GROWING and not match["index"]] == []


@pytest.mark.parametrize("query", [job_reads.JobsPage(50), events.NewestEvent()], ids=["a page of all jobs", "the newest event"])
def test_newest_first_walks_back_from_the_end_and_sorts_nothing(engine: Engine, query: Query[Any]) -> None:
    assert [line for line in plans(engine, query) if "TEMP B-TREE" in line or line.strip().startswith("->  Sort")] == []


def test_old_answers_are_found_by_their_age(engine: Engine, world: World) -> None:
    class Old:
        def fetch(self, connection: Any, /) -> None:
            idempotency.PruneRecords(T0_MS).execute(connection)

    assert [line for line in plans(engine, Old()) if SCANS.search(line.strip()) and "USING INDEX" not in line] == []
    assert world.run(idempotency.PruneRecords(T0_MS)) == 0
