"""The checker of invariants notices each kind of violation. It is broken past the store, on SQLite with the database's own guards off."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from billing.calc import rating
from store.engine import Store
from store.usage import LeasesToRate, StoreLines
from tests.store.world import World
from tests.support import invariants
from tests.support.statements import change


@pytest.fixture
def world(sqlite_url: str) -> Iterator[World]:
    """A tenant with one job of each fate: waiting, running on two devices, and succeeded, released and rated."""
    store = Store.open(sqlite_url)
    world = World(store)
    world.tenant("acme")
    world.node("a")
    done, running, waiting = (world.job(gpus=gpus) for gpus in (1, 2, 1))
    assert (done, running, waiting) == ("job_000002", "job_000003", "job_000004")
    finished = world.bind(world.start(done, on=[("a", 0)], lease="lea_done"))
    world.run_to_the_end(finished[0])
    batch = world.read(LeasesToRate("USD"))
    lines = [line for lease in batch.leases for line in rating.rate(lease, batch.prices)]
    world.run(StoreLines(lines, ["lea_done"], "USD", world.now_ms, batch.prices))
    world.bind(world.start(running, on=[("a", 1), ("a", 2)], lease="lea_runs"))
    yield world
    store.close()


def break_rows(url: str, sql: str) -> None:
    """Run statements on a connection that checks neither foreign keys nor constraints."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        for statement in sql.split(";"):
            assert connection.execute(statement).rowcount > 0
        connection.commit()


def violations(world: World) -> list[str]:
    found: list[str] = world.read(invariants.Violations())
    return found


def test_sound_rows_have_no_violations(world: World) -> None:
    assert violations(world) == []


BREAKS = [
    ("slices_are_claimed_once", "a slice that nobody claims", "DELETE FROM device_claim WHERE device_id = 'GPU-a-1'"),
    ("slices_are_claimed_once", "a claim of a released lease", "INSERT INTO device_claim VALUES ('GPU-a-0', 0, 'whole', 'lea_done', 0)"),
    ("slices_are_claimed_once", "a claim of another device", "UPDATE device_claim SET device_id = 'GPU-a-7' WHERE device_id = 'GPU-a-1'"),
    ("slices_are_claimed_once", "a device that moved", "UPDATE device SET node_id = 'nod_b' WHERE id = 'GPU-a-0'"),
    ("slices_are_claimed_once", "a mode that changed", "UPDATE device SET mode = 'mig' WHERE id = 'GPU-a-1'"),
    ("slices_never_overlap_in_time", "a device given twice", "UPDATE lease_slice SET device_id = 'GPU-a-1' WHERE lease_id = 'lea_done'"
     ";UPDATE lease SET released_at_ms = released_at_ms + 9999999 WHERE id = 'lea_done'"),
    ("gangs_are_whole", "a slice that is missing", "DELETE FROM lease_slice WHERE lease_id = 'lea_runs' AND ordinal = 1"),
    ("gangs_are_whole", "a lease that counts wrongly", "UPDATE lease SET milli_gpu = 1999 WHERE id = 'lea_runs'"),
    ("gangs_are_whole", "a replica over two nodes", "UPDATE lease_slice SET node_id = 'nod_b' WHERE lease_id = 'lea_runs' AND ordinal = 1"),
    ("gangs_are_whole", "a lease without a node", "DELETE FROM lease_node WHERE lease_id = 'lea_runs'"),
    ("gangs_are_whole", "a gang over two sites", "INSERT INTO node (id, name, site, cpu_milli, memory_bytes, is_simulated, is_cordoned,"
     " is_draining, is_lost, labels, taints, registered_at_ms) SELECT 'nod_b', 'b', 'hue', cpu_milli, memory_bytes, is_simulated,"
     " is_cordoned, is_draining, is_lost, labels, taints, registered_at_ms FROM node;"
     "INSERT INTO lease_node VALUES ('lea_runs', 'nod_b', 'worker', 0, 0, 0)"),
    ("jobs_are_in_one_state", "a queued job with an open attempt", "UPDATE job SET state = 'queued' WHERE id = 'job_000003'"),
    ("jobs_are_in_one_state", "a starting job without an attempt", "UPDATE job SET state = 'starting' WHERE id = 'job_000004'"),
    ("jobs_are_in_one_state", "an attempt that nobody counted", "UPDATE job SET attempt = 2 WHERE id = 'job_000003'"),
    ("jobs_are_in_one_state", "more attempts than allowed", "UPDATE job SET maximum_attempts = 0 WHERE id = 'job_000003'"),
    ("jobs_are_in_one_state", "an end without an end", "UPDATE job SET ended_at_ms = NULL WHERE id = 'job_000002'"),
    ("jobs_are_in_one_state", "a run without a start", "UPDATE job SET state = 'running' WHERE id = 'job_000003'"),
    ("jobs_are_in_one_state", "a success that failed", "UPDATE attempt SET outcome = 'failed' WHERE job_id = 'job_000002'"),
    ("jobs_are_in_one_state", "a cancelled job in the queue", "UPDATE job SET target = 'cancel' WHERE id = 'job_000004'"),
    ("jobs_are_in_one_state", "two ends", "INSERT INTO event (at_ms, kind, job_id, data) VALUES (1, 'job_failed', 'job_000002', '{}')"),
    ("jobs_are_in_one_state", "a job that came from nowhere", "DELETE FROM event WHERE kind = 'job_submitted' AND job_id = 'job_000004'"),
    ("attempts_have_one_lease_each", "an attempt without a lease", "DELETE FROM attempt WHERE job_id = 'job_000003'"),
    ("attempts_have_one_lease_each", "ends that differ", "UPDATE attempt SET ended_at_ms = ended_at_ms + 1"),
    ("leases_go_forward", "an end before the run", "UPDATE lease SET running_at_ms = ended_at_ms + 1 WHERE id = 'lea_done'"),
    ("leases_go_forward", "an end without a cause", "UPDATE lease SET end_cause = NULL WHERE id = 'lea_done'"),
    ("leases_go_forward", "a release without an end", "UPDATE lease SET released_at_ms = granted_at_ms WHERE id = 'lea_runs'"),
    ("leases_go_forward", "a release without a proof", "UPDATE lease_node SET is_gone = 0 WHERE lease_id = 'lea_done'"),
    ("lines_are_the_leases", "a millisecond that nobody pays", "UPDATE usage_line SET start_ms = start_ms + 1"),
    ("lines_are_the_leases", "a quantity that is wrong", "UPDATE usage_line SET milli_gpu_ms = milli_gpu_ms + 1"),
    ("lines_are_the_leases", "an amount that is wrong", "UPDATE usage_line SET amount_units = amount_units + 1"),
    ("lines_are_the_leases", "lines of a lease that is not rated", "UPDATE lease SET rated_at_ms = NULL WHERE id = 'lea_done'"),
    ("lines_are_the_leases", "a credit without a charge", "INSERT INTO usage_line SELECT 'x', 'credit', corrects, lease_id, tenant_id,"
     " project_id, user_id, job_id, flavor, start_ms, end_ms, milli_gpu, 0, price_id, units_per_hour, slices, currency, -1, created_at_ms"
     " FROM usage_line"),
    ("classes_describe_their_jobs", "a job in a foreign class", "UPDATE job_class SET priority = 7"),
    ("starts_stay_within_quota", "a start over the quota", "UPDATE quota SET nominal = 1999"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "sql"), [pytest.param(rule, sql, id=name) for rule, name, sql in BREAKS])
def test_violation_is_noticed(world: World, rule: str, sql: str) -> None:
    break_rows(world.store.url, sql)
    assert rule in {sentence.split(":")[0] for sentence in violations(world)}


async def test_check_raises_with_every_violation(world: World) -> None:
    change(world.store, "UPDATE lease SET milli_gpu = 7")
    with pytest.raises(AssertionError, match=r"(?s)lea_done says.*lea_runs says"):
        await invariants.check(world.store)
