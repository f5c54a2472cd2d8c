from __future__ import annotations

import base64
import json

from terrace.sdk.streams import Event, parse
from tests.support.api import Api, Caller

KINDS = ["job_submitted", "job_leased", "job_started", "lease_ended", "job_succeeded", "lease_released"]


async def finished(api: Api) -> tuple[Caller, str]:
    """Let a job of acme's run to its end; return its submitter and its identifier."""
    agent = await api.node()
    await api.tenant()
    ada = await api.user("member")
    job = await ada.submit()
    await api.schedule()
    (lease,) = await agent.leases()
    await agent.see("started", "exited", "gone", lease=lease["lease_id"], data={"exit_code": 0})
    await api.schedule()
    return ada, job["id"]


async def stream(caller: Caller, path: str, **headers: str) -> list[Event]:
    """Return the events of a stream that ends."""
    answer = await caller.get(f"{path}?follow=true", headers=headers)
    return list(parse(answer.text.splitlines()))


async def test_events_of_a_job_tell_its_life_in_order(api: Api) -> None:
    ada, job_id = await finished(api)

    page = await ada.fetch(f"/v1/jobs/{job_id}/events")

    assert [event["kind"] for event in page["items"]] == KINDS
    assert {(event["tenant"], event["job_id"]) for event in page["items"]} == {("acme", job_id)}
    assert [event["id"] for event in page["items"]] == sorted(event["id"] for event in page["items"])


async def test_stream_of_an_ended_job_gives_every_event_and_its_end(api: Api) -> None:
    ada, job_id = await finished(api)
    page = await ada.fetch(f"/v1/jobs/{job_id}/events")

    events = await stream(ada, f"/v1/jobs/{job_id}/events")

    assert [event.kind for event in events] == [*KINDS, "end"]
    assert [json.loads(event.data) for event in events[:-1]] == page["items"]
    assert [event.id for event in events[:-1]] == [str(event["id"]) for event in page["items"]]


async def test_stream_resumes_after_the_last_event(api: Api) -> None:
    ada, job_id = await finished(api)
    page = (await ada.fetch(f"/v1/jobs/{job_id}/events"))["items"]

    resumed = await stream(ada, f"/v1/jobs/{job_id}/events", **{"Last-Event-ID": str(page[2]["id"])})
    at_the_end = await stream(ada, f"/v1/jobs/{job_id}/events", **{"Last-Event-ID": str(page[-1]["id"])})

    assert [event.kind for event in resumed] == [*KINDS[3:], "end"]
    assert [event.kind for event in at_the_end] == ["end"]


async def test_accept_header_asks_for_a_stream_too(api: Api) -> None:
    ada, job_id = await finished(api)

    answer = await ada.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})

    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_operators_see_everybodys_events_and_tenants_their_own(api: Api) -> None:
    ada, job_id = await finished(api)
    await api.tenant("globex")
    bob = await api.user("member", tenant="globex")
    other = await bob.submit()
    beginning = base64.urlsafe_b64encode(b"0").decode()

    seen = {
        name: {event["job_id"] for event in (await caller.fetch("/v1/events", params={"cursor": beginning, "limit": 500}))["items"]}
        for name, caller in {"ada": ada, "bob": bob, "operator": api.operator}.items()
    }

    assert (seen["ada"] - {None}, seen["bob"] - {None}) == ({job_id}, {other["id"]})
    assert seen["operator"] >= {job_id, other["id"]}
