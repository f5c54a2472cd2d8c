from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api import clock
from tests.api.conftest import OpenApi
from tests.support.api import Agent, Api, Caller, problem_of, spec


@pytest.fixture
async def ada(api: Api) -> Caller:
    """A member of acme."""
    await api.tenant()
    return await api.user("member", name="ada")


async def test_submitted_job_is_kept_as_it_was_sent(api: Api, ada: Caller) -> None:
    sent = spec(
        name="resnet é", replicas=2, gpus=4, cpu_milli=500, memory_bytes=1_000, limit_seconds=60, tier="short", priority=-5,
        environment={"SEED": "1\n2"}, requirements="numpy\n", maximum_attempts=1,
    )  # fmt: skip

    accepted = await ada.create("/v1/jobs", sent)

    read = await ada.fetch(f"/v1/jobs/{accepted['id']}")
    assert {key: read[key] for key in accepted} == accepted
    assert {key: read[key] for key in sent if key not in ("environment", "requirements")} == {
        key: value for key, value in sent.items() if key not in ("environment", "requirements")
    }
    assert (read["tenant"], read["project"], read["user"], read["state"]) == ("acme", "default", "ada", "queued")


async def test_accepted_job_says_that_it_was_not_considered_yet_and_later_why_it_waits(api: Api, ada: Caller) -> None:
    await api.node(gpus=2)
    await ada.submit(gpus=2)
    waiting = await ada.submit(gpus=2)
    await api.schedule()

    read = await ada.fetch(f"/v1/jobs/{waiting['id']}")
    third = await ada.submit(gpus=2)

    assert waiting["reason"]["code"] == "not_yet_considered"
    assert read["reason"]["code"] != "not_yet_considered"
    assert read["reason"]["data"]
    assert third["reason"] == read["reason"]


async def test_defaults_are_the_tiers_and_the_quotas(api: Api, ada: Caller) -> None:
    job = await ada.create("/v1/jobs", {"entrypoint": ["true"]})

    assert (job["flavors"], job["gpus"], job["limit_seconds"], job["replicas"]) == (["h200"], 1, 3_600, 1)


async def test_job_without_gpus_needs_no_quota_of_any(api: Api) -> None:
    await api.tenant("poor", gpus=None)
    eve = await api.user("member", tenant="poor")

    job = await eve.create("/v1/jobs", {"entrypoint": ["true"], "gpus": 0, "cpu_milli": 100})

    assert (job["gpus"], job["flavors"]) == (0, [])


async def test_batch_is_accepted_whole_and_in_its_order(api: Api, ada: Caller) -> None:
    before = await api.rows()
    answer = await ada.create("/v1/jobs/batch", {"jobs": [spec(name=f"job-{number}") for number in range(1_000)]})

    listed = (await ada.fetch("/v1/jobs", params={"limit": 500}))["items"]
    rows = await api.rows()
    assert [job["name"] for job in answer["jobs"]] == [f"job-{number}" for number in range(1_000)]
    assert [job["id"] for job in listed] == [job["id"] for job in answer["jobs"][:-501:-1]]
    assert [rows[name] - before[name] for name in ("job", "job_class", "event")] == [1_000, 1, 1_000]


async def test_listing_narrows_by_state_and_project(api: Api, ada: Caller) -> None:
    await api.operator.create("/v1/tenants/acme/projects", {"name": "vision"})
    jobs = [await ada.submit(project=project) for project in ("default", "vision", "vision")]
    await ada.change("POST", f"/v1/jobs/{jobs[2]['id']}/cancel")

    async def listed(query: str) -> list[str]:
        return [job["id"] for job in (await ada.fetch(f"/v1/jobs?{query}"))["items"]]

    assert await listed("project=vision") == [jobs[2]["id"], jobs[1]["id"]]
    assert await listed("state=queued&state=running") == [jobs[1]["id"], jobs[0]["id"]]
    assert await listed("state=cancelled&project=vision") == [jobs[2]["id"]]
    assert await listed("project=nothing") == []


async def test_cancelling_a_waiting_job_ends_it_at_once_and_again_changes_nothing(api: Api, ada: Caller) -> None:
    job = await ada.submit()

    first = await ada.change("POST", f"/v1/jobs/{job['id']}/cancel")
    before = await api.rows()
    again = await ada.change("POST", f"/v1/jobs/{job['id']}/cancel")

    assert (first["state"], first["target"]) == ("cancelled", "cancel")
    assert again == first
    assert await api.rows() == before


async def test_cancelling_a_running_job_tells_its_agent_to_stop(api: Api, ada: Caller) -> None:
    agent = await api.node()
    job = await ada.submit()
    await api.schedule()
    (lease,) = await agent.leases()
    await agent.see("started", lease=lease["lease_id"])
    await api.schedule()

    asked = await ada.change("POST", f"/v1/jobs/{job['id']}/cancel")
    await api.schedule()

    (told,) = await agent.leases()
    assert (asked["state"], asked["target"]) == ("running", "cancel")
    assert (told["target"], told["stop_cause"]) == ("stop", "cancelled")


async def test_racing_cancels_agree(api: Api, ada: Caller) -> None:
    job = await ada.submit()

    answers = await asyncio.gather(*(ada.post(f"/v1/jobs/{job['id']}/cancel") for _ in range(8)))

    assert {answer.status_code for answer in answers} <= {200, 409}
    assert 200 in {answer.status_code for answer in answers}
    events = (await ada.fetch(f"/v1/jobs/{job['id']}/events"))["items"]
    assert [event["kind"] for event in events] == ["job_submitted", "job_cancel_requested", "job_cancelled"]


async def test_operator_cancels_any_job_and_submits_none(api: Api, ada: Caller) -> None:
    job = await ada.submit()

    cancelled = await api.operator.change("POST", f"/v1/jobs/{job['id']}/cancel")
    submitted = await api.operator.post("/v1/jobs", spec())

    assert cancelled["state"] == "cancelled"
    assert problem_of(submitted)[:2] == (403, "permission_missing")


async def test_tenant_has_at_most_so_many_open_jobs(open_api: OpenApi) -> None:
    api = await open_api(open_jobs_maximum=3, catalog_seconds=0)
    await api.tenant()
    ada = await api.user("member")
    jobs = [await ada.submit() for _ in range(2)]
    before = await api.rows()

    batch = await ada.post("/v1/jobs/batch", {"jobs": [spec()] * 2})
    after = await api.rows()
    third = await ada.post("/v1/jobs", spec())
    fourth = await ada.post("/v1/jobs", spec())
    await ada.change("POST", f"/v1/jobs/{jobs[0]['id']}/cancel")
    fifth = await ada.post("/v1/jobs", spec())

    assert [answer.status_code for answer in (batch, third, fourth, fifth)] == [429, 201, 429, 201]
    assert (batch.json()["code"], batch.json()["data"]["limit"], batch.headers["retry-after"]) == ("too_many_open_jobs", 3, "30")
    assert after == before


@pytest.mark.parametrize("catalog_seconds", [0, 60], ids=["counted each time", "counted once"])
async def test_submits_at_once_do_not_pass_the_limit_together(open_api: OpenApi, catalog_seconds: float) -> None:
    api = await open_api(open_jobs_maximum=10, catalog_seconds=catalog_seconds)
    await api.tenant()
    ada = await api.user("member")

    answers = await asyncio.gather(*(ada.post("/v1/jobs/batch", {"jobs": [spec()] * 3}) for _ in range(20)))

    assert 3 <= (await api.rows())["job"] <= 10
    assert {answer.status_code for answer in answers} == {201, 429}


async def test_detail_shows_attempts_with_their_slices(api: Api, ada: Caller) -> None:
    agent: Agent = await api.node(gpus=2)
    job = await ada.submit(gpus=2)
    await api.schedule()
    (lease,) = await agent.leases()
    await agent.see("started", lease=lease["lease_id"])
    await agent.see("progress", lease=lease["lease_id"], data={"step": 3, "total": 10, "metrics": {"loss": 0.5}})
    await agent.see("exited", lease=lease["lease_id"], data={"exit_code": 3, "failure_class": "user_code", "message": "boom\0"})
    await agent.see("gone", lease=lease["lease_id"])
    await api.schedule()

    read: dict[str, Any] = await ada.fetch(f"/v1/jobs/{job['id']}")

    (attempt,) = read["attempts"]
    assert (read["state"], read["exit_code"], read["failure_class"], read["message"]) == (
        "failed",
        3,
        "user_code",
        "boom\N{REPLACEMENT CHARACTER}",
    )
    assert (attempt["lease_id"], attempt["outcome"], attempt["exit_code"]) == (lease["lease_id"], "failed", 3)
    assert [(item["node"], item["device_index"], item["is_simulated"]) for item in attempt["slices"]] == [
        ("node-1", 0, True),
        ("node-1", 1, True),
    ]
    assert read["ended_at"] <= clock.rfc3339(clock.now_ms())
