"""What the database itself refuses, whatever the code above it does: the first invariant of the design, and its neighbours."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from tests.store.world import World
from tests.support import invariants
from tests.support.statements import change

CLAIM = "INSERT INTO device_claim (device_id, cell, mode, lease_id, ordinal) VALUES (:device, :cell, :mode, :lease, :ordinal)"
LEASE = (
    "INSERT INTO lease (id, job_id, attempt, tenant_id, project_id, user_id, slices, milli_gpu, target, token, limit_ms, grace_ms,"
    " granted_at_ms, running_at_ms, ended_at_ms, released_at_ms) VALUES (:id, :job, :attempt, 'ten_acme', 'prj_acme', 'usr_acme', 0, 0,"
    " 'run', 't', 1, 1, :granted, :running, :ended, :released)"
)
OBSERVATION = (
    "INSERT INTO observation (node_id, boot_id, agent_seq, kind, data, observed_at_ms, received_at_ms) VALUES"
    " ('nod_a', 'boot', 1, :kind, '{}', 0, 0)"
)
RECORD = (
    "INSERT INTO idempotency_record (user_id, key, route, body_sha256, status, response, created_at_ms) VALUES"
    " ('usr_acme', 'key', 'POST /v1/jobs', :body, 201, '{}', 0)"
)
ACCOUNT = "INSERT INTO account (id, tenant_id, name, role, is_disabled, created_at_ms) VALUES (:id, :tenant, 'ada', :role, {false}, 0)"


@pytest.fixture
def held(world: World) -> World:
    """Tenant `acme`, whose job of two devices holds GPU-a-0 and GPU-a-1 as lease `lea_a`, and a queued job."""
    world.tenant("acme")
    world.node("a")
    world.bind(world.start(world.job(gpus=2), on=[("a", 0), ("a", 1)], lease="lea_a"))
    assert world.job() == "job_000003"
    return world


def refused(world: World, sql: str, **values: object) -> None:
    """Assert that the database refuses, and that everything is as before."""
    with pytest.raises(IntegrityError):
        change(world.store, sql, **values)
    invariants.check_blocking(world.store)


def lease(**fields: object) -> dict[str, object]:
    return {"id": "lea_b", "job": "job_000003", "attempt": 1, "granted": 10, "running": None, "ended": None, "released": None, **fields}


def test_device_is_not_given_twice(held: World) -> None:
    refused(held, CLAIM, device="GPU-a-0", cell=0, mode="whole", lease="lea_a", ordinal=1)


def test_whole_device_has_one_cell_only(held: World) -> None:
    refused(held, CLAIM, device="GPU-a-0", cell=1, mode="whole", lease="lea_a", ordinal=1)


def test_cell_below_zero_does_not_exist(held: World) -> None:
    refused(held, CLAIM, device="GPU-a-0", cell=-1, mode="mig", lease="lea_a", ordinal=1)


@pytest.mark.parametrize("mode", ["mig", "shared"])
def test_claim_in_another_mode_than_the_devices(held: World, mode: str) -> None:
    refused(held, CLAIM, device="GPU-a-5", cell=0, mode=mode, lease="lea_a", ordinal=1)


def test_mode_of_a_device_does_not_change_under_an_open_claim(held: World) -> None:
    refused(held, "UPDATE device SET mode = 'mig' WHERE id = 'GPU-a-0'")


def test_mode_of_a_free_device_may_change(held: World) -> None:
    assert change(held.store, "UPDATE device SET mode = 'mig' WHERE id = 'GPU-a-7'") == 1


def test_mode_that_nobody_knows(held: World) -> None:
    refused(held, "UPDATE device SET mode = 'half' WHERE id = 'GPU-a-7'")


def test_claim_of_a_slice_that_no_lease_has(held: World) -> None:
    refused(held, CLAIM, device="GPU-a-5", cell=0, mode="whole", lease="lea_a", ordinal=2)


def test_claimed_device_cannot_be_deleted(held: World) -> None:
    refused(held, "DELETE FROM device WHERE id = 'GPU-a-0'")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"ended": 9}, id="ended before it was granted"),
        pytest.param({"running": 9}, id="running before it was granted"),
        pytest.param({"running": 12, "ended": 11}, id="ended before it ran"),
        pytest.param({"ended": 12, "released": 11}, id="released before it ended"),
        pytest.param({"released": 11}, id="released without an end"),
    ],
)
def test_lease_does_not_go_backwards(held: World, fields: dict[str, object]) -> None:
    refused(held, LEASE, **lease(**fields))


def test_attempt_has_no_second_lease(held: World) -> None:
    refused(held, LEASE, **lease(job="job_000002", attempt=1, ended=20))


def test_job_does_not_run_twice_at_a_time(held: World) -> None:
    refused(held, LEASE, **lease(job="job_000002", attempt=2))


def test_lease_has_no_second_attempt(held: World) -> None:
    refused(held, "INSERT INTO attempt (job_id, number, lease_id, created_at_ms) VALUES ('job_000002', 2, 'lea_a', 0)")


def test_attempt_of_a_lease_that_does_not_exist(held: World) -> None:
    refused(held, "INSERT INTO attempt (job_id, number, lease_id, created_at_ms) VALUES ('job_000002', 2, 'lea_z', 0)")


def test_observation_counts_once(held: World) -> None:
    change(held.store, OBSERVATION, kind="started")
    refused(held, OBSERVATION, kind="exited")


def test_idempotency_key_counts_once(held: World) -> None:
    change(held.store, RECORD, body="one")
    refused(held, RECORD, body="other")


def test_usage_line_counts_once(held: World) -> None:
    line = (
        "INSERT INTO usage_line (id, kind, lease_id, tenant_id, project_id, user_id, job_id, start_ms, end_ms, milli_gpu, milli_gpu_ms,"
        " units_per_hour, slices, currency, amount_units, created_at_ms) VALUES (:id, 'lease', 'lea_a', 't', 'p', 'u', 'j', 0, 1, 0, 0, 0,"
        " 0, 'USD', 0, 0)"
    )
    change(held.store, line, id="one")
    with pytest.raises(IntegrityError):
        change(held.store, line, id="other")


@pytest.mark.parametrize("sql", ["state = 'lost'", "target = 'sleep'", "replicas = 0", "limit_ms = 0", "attempt = -1"])
def test_job_that_makes_no_sense(held: World, sql: str) -> None:
    refused(held, f"UPDATE job SET {sql} WHERE id = 'job_000003'")  # noqa: S608  words of this file


@pytest.mark.parametrize(("tenant", "role"), [("ten_acme", "member"), (None, "operator")], ids=["in a tenant", "of the service"])
def test_name_of_a_user_is_taken_once(held: World, tenant: str | None, role: str) -> None:
    sql = ACCOUNT.format(false="0" if held.store.is_sqlite else "false")
    change(held.store, sql, id="usr_1", tenant=tenant, role=role)
    refused(held, sql, id="usr_2", tenant=tenant, role=role)


@pytest.mark.parametrize(
    ("tenant", "role"), [(None, "member"), ("ten_acme", "operator")], ids=["member of nothing", "operator of a tenant"]
)
def test_role_that_does_not_fit(held: World, tenant: str | None, role: str) -> None:
    refused(held, ACCOUNT.format(false="0" if held.store.is_sqlite else "false"), id="usr_1", tenant=tenant, role=role)
