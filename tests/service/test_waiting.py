"""Why a job waits, until when, and that it starts once what it waited for is there."""

from __future__ import annotations

import json

from executors.fake import Script
from store import tables
from store.engine import Store
from tests.support.fleet import MINUTE_MS, T0_MS, Fleet

GRACE_MS = 10_000  # of the tier `standard`


async def test_job_over_quota_waits_with_reason_and_forecast_and_starts_when_the_first_ends(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 8}, quota=4)
    first = await world.submit(gpus=4, limit_ms=10 * MINUTE_MS)
    await world.settle()
    second = await world.submit(gpus=2, limit_ms=10 * MINUTE_MS)
    await world.settle()

    answer = (await world.job(second)).answer
    assert (await world.state(second), answer.reason_code, answer.reason_unblocks_when) == ("queued", "quota_exceeded", "own_job_ends")
    assert json.loads(answer.reason_data or "") == {
        "resource": "h200", "needed_milli_gpu": 2_000, "available_milli_gpu": 0, "used_milli_gpu": 4_000, "nominal_milli_gpu": 4_000,
    }  # fmt: skip
    assert (answer.forecast_start_ms, answer.not_before_ms) == (T0_MS + 10 * MINUTE_MS + GRACE_MS, None)
    await world.pass_time(20_000)
    await world.settle()
    assert [await world.state(job) for job in (first, second)] == ["succeeded", "running"]


async def test_quota_that_is_raised_starts_what_waited_for_it(store: Store) -> None:
    world = await Fleet(store).begin(quota=1)
    jobs = [await world.submit(), await world.submit()]
    await world.settle()
    assert [await world.state(job) for job in jobs] == ["running", "queued"]

    await world.pass_time(1)
    await world.set_quota("acme", 2)
    await world.settle()

    assert [await world.state(job) for job in jobs] == ["running", "running"]


async def test_gang_starts_whole_on_one_node_or_not_at_all(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 4, "node-b": 8}, quota=12)
    await world.submit(gpus=2, script=Script(duration_ms=30_000))
    await world.settle()
    gang = await world.submit(gpus=2, replicas=4)
    await world.settle()
    other = await world.submit(gpus=2, replicas=4)
    await world.settle()

    (lease,) = await world.leases(gang)
    held = [row for row in await world.rows(tables.LeaseSlice) if row["lease_id"] == lease["id"]]
    assert [(row["replica"], row["node_id"]) for row in held] == [(number // 2, "node_node-b") for number in range(8)]
    assert (await world.state(other), await world.leases(other)) == ("queued", [])
    assert (await world.job(other)).answer.reason_code == "quota_exceeded"


async def test_blocked_job_gets_its_place_before_longer_ones_and_after_shorter_ones(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 4}, quota=8)
    await world.submit(gpus=2, limit_ms=10 * MINUTE_MS, script=Script(duration_ms=5 * MINUTE_MS))
    await world.settle()
    whole, short, long = [await world.submit(gpus=gpus, limit_ms=limit) for gpus, limit in ((4, MINUTE_MS), (1, MINUTE_MS), (1, 3_600_000))]
    await world.settle()

    assert [await world.state(job) for job in (whole, short, long)] == ["queued", "running", "queued"]
    assert [(await world.job(job)).answer.reason_code for job in (whole, long)] == ["no_capacity", "would_delay"]
    await world.pass_time(5 * MINUTE_MS)
    await world.settle()
    assert [await world.state(job) for job in (whole, short, long)] == ["running", "succeeded", "queued"]


async def test_answer_of_a_class_is_written_only_when_it_changes(store: Store) -> None:
    world = await Fleet(store).begin(quota=1)
    await world.submit(script=Script(duration_ms=10 * MINUTE_MS))
    await world.settle()
    await world.submit(limit_ms=5 * MINUTE_MS)
    await world.settle()
    (waiting,) = [row for row in await world.rows(tables.JobClass) if row["reason_code"] is not None]

    for _ in range(3):
        await world.pass_time(5_000)
        await world.step()
    (later,) = [row for row in await world.rows(tables.JobClass) if row["reason_code"] is not None]
    assert (later, later["answered_at_ms"]) == (waiting, T0_MS)

    await world.submit(gpus=1, limit_ms=5 * MINUTE_MS, priority=1)
    await world.settle()
    changed = [row["answered_at_ms"] for row in await world.rows(tables.JobClass) if row["id"] == waiting["id"]]
    assert changed == [T0_MS + 15_000]


async def test_jobs_of_one_class_share_one_answer(store: Store) -> None:
    world = await Fleet(store).begin(quota=1)
    jobs = [await world.submit() for _ in range(4)]
    await world.settle()

    answers = {(await world.job(job)).answer for job in jobs}

    assert [await world.state(job) for job in jobs] == ["running", "queued", "queued", "queued"]
    assert len(answers) == len(await world.rows(tables.JobClass)) == 1


async def test_job_that_can_never_start_is_told_so_and_gets_no_forecast(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 4}, quota=8)
    job = await world.submit(gpus=8)

    await world.settle()

    answer = (await world.job(job)).answer
    assert (answer.reason_code, answer.reason_unblocks_when) == ("exceeds_maximum", "change_the_job")
    assert (answer.forecast_start_ms, answer.not_before_ms) == (None, None)


async def test_job_without_gpus_starts_beside_gpus_over_a_quota_that_was_cut(store: Store) -> None:
    world = await Fleet(store).begin(quota=2)
    first = await world.submit(gpus=2)
    await world.settle()
    await world.pass_time(1)
    await world.set_quota("acme", 0)
    await world.pass_time(1)

    second = await world.submit(gpus=0, cpu_milli=1_000)
    await world.settle()

    assert [await world.state(job) for job in (first, second)] == ["running", "running"]
