"""What is forgotten in time, what is kept for ever, and how many archives a tenant may keep."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from api import clock, upkeep
from api.settings import ArchiveLimits, Retention
from store.archives import ForgetArchives, UnusedArchives
from store.job_reads import JobById
from tests.api.conftest import OpenApi
from tests.support.api import Api, Caller, problem_of
from tests.support.businesses import packed

DAY_MS = upkeep.DAY_MS
GOOD = packed({"train.py": b"print('hello')\n"})
OTHER = packed({"train.py": b"print('goodbye')\n"})
KEEPS_ALL = Retention(archive_days=0, log_days=0, event_days=0, observation_days=0)


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files(api: Api) -> list[Path]:
    """Return the archives on the disk."""
    return sorted(path for path in (api.state_dir / "archives").rglob("*") if path.is_file())


def age(api: Api) -> None:
    """Make the files as old as if their uploads were long over."""
    for path in files(api):
        os.utime(path, (0, 0))


async def later(api: Api, days: int, retention: Retention) -> dict[str, int]:
    """Let a round of upkeep happen `days` from now."""
    return await upkeep.once(api.store, api.app.state.uploads, retention, now_ms=clock.now_ms() + days * DAY_MS)


@pytest.fixture
async def ada(api: Api) -> Caller:
    """A member of acme."""
    await api.tenant()
    return await api.user("member")


async def put(caller: Caller, data: bytes) -> int:
    """Upload an archive; return the status."""
    return (await caller.send("PUT", f"/v1/archives/{sha_of(data)}", content=data)).status_code


async def test_archive_that_no_job_needs_is_deleted_and_may_come_again(api: Api, ada: Caller) -> None:
    await put(ada, GOOD)
    age(api)

    early = await later(api, 29, Retention())
    kept = len(files(api))
    late = await later(api, 31, Retention())

    assert (early["archives"], kept, late["archives"], files(api)) == (0, 1, 1, [])
    assert await put(ada, GOOD) == 201


async def test_archive_of_a_job_that_has_not_ended_is_kept(api: Api, ada: Caller) -> None:
    await put(ada, GOOD)
    job = await ada.submit(archive_sha256=sha_of(GOOD))
    age(api)

    while_open = await later(api, 100, Retention())
    await ada.change("POST", f"/v1/jobs/{job['id']}/cancel")
    soon_after = await later(api, 29, Retention())
    long_after = await later(api, 31, Retention())

    assert [round_["archives"] for round_ in (while_open, soon_after, long_after)] == [0, 0, 1]


async def test_archive_of_another_tenants_job_is_not_kept_for_it(api: Api, ada: Caller) -> None:
    await api.tenant("borealis")
    bob = await api.user("member", tenant="borealis", name="bob")
    for caller in (ada, bob):
        await put(caller, GOOD)
    await ada.submit(archive_sha256=sha_of(GOOD))
    age(api)

    assert (await later(api, 31, Retention()))["archives"] == 1
    assert len(files(api)) == 1


async def test_archive_that_is_uploaded_again_while_it_is_deleted_is_kept(api: Api, ada: Caller) -> None:
    await put(ada, GOOD)  # its file is new, as if it had come between the row's end and the file's

    await later(api, 31, Retention())

    assert [path.name for path in files(api)] == [sha_of(GOOD)]


async def test_file_without_a_row_is_deleted(api: Api, ada: Caller) -> None:
    await put(ada, GOOD)
    stray = files(api)[0].with_name(sha_of(OTHER))
    stray.write_bytes(OTHER)
    age(api)

    await later(api, 0, KEEPS_ALL)

    assert [path.name for path in files(api)] == [sha_of(GOOD)]


@pytest.mark.parametrize(
    "limits",
    [ArchiveLimits(archives_per_tenant_maximum=1), ArchiveLimits(bytes_per_tenant_maximum=len(GOOD) + len(OTHER) - 1)],
    ids=["so many archives", "so many bytes"],
)
@pytest.mark.parametrize("says_its_size", [True, False], ids=["says its size", "says no size"])
async def test_archive_over_the_tenants_limit_is_refused_and_leaves_nothing(
    open_api: OpenApi, limits: ArchiveLimits, says_its_size: bool
) -> None:
    api = await open_api(archive=limits)
    await api.tenant()
    ada = await api.user("member")
    await put(ada, GOOD)

    async def pieces() -> AsyncIterator[bytes]:
        yield OTHER

    content = OTHER if says_its_size else pieces()
    refused = await ada.send("PUT", f"/v1/archives/{sha_of(OTHER)}", content=content)

    assert problem_of(refused)[:3] == (409, "archive_quota_exceeded", "sha256")
    assert [path.name for path in files(api)] == [sha_of(GOOD)]
    assert await put(ada, GOOD) == 200


async def test_uploads_at_once_do_not_pass_the_limit_together(open_api: OpenApi) -> None:
    api = await open_api(archive=replace(ArchiveLimits(), archives_per_tenant_maximum=2))
    await api.tenant()
    ada = await api.user("member")

    statuses = await asyncio.gather(*(put(ada, packed({"n": bytes([number])})) for number in range(4)))

    assert sorted(statuses) == [201, 201, 409, 409]
    assert len(files(api)) == (await api.rows())["blob"] == 2


async def ended(api: Api, ada: Caller) -> str:
    """Run a job to its end, with output; return its identifier."""
    agent = await api.node()
    job = await ada.submit()
    await api.schedule()
    (lease,) = await agent.leases()
    await agent.see("started", lease=lease["lease_id"])
    await agent.write(lease["lease_id"], 0, "hello\n")
    await agent.see("exited", "gone", lease=lease["lease_id"], data={"exit_code": 0})
    await api.schedule()
    return str(job["id"])


async def test_output_events_and_reports_are_forgotten_in_time_and_the_lease_is_not(api: Api, ada: Caller) -> None:
    job = await ended(api, ada)
    before = await api.rows()

    early = await later(api, 29, Retention())
    late = await later(api, 401, Retention())

    after = await api.rows()
    assert early == {"answers": early["answers"], "logs": 0, "events": 0, "observations": 0, "archives": 0}
    assert (late["logs"], late["observations"]) == (1, before["observation"])
    assert late["events"] > 0
    assert (after["log_chunk"], after["observation"]) == (0, 0)
    assert {name: after[name] for name in ("job", "attempt", "lease")} == {name: before[name] for name in ("job", "attempt", "lease")}
    assert (await api.store.read(JobById(job))).state == "succeeded"
    assert (await ada.get(f"/v1/jobs/{job}/logs")).text == ""


async def test_changes_by_an_operator_stay_told(api: Api, ada: Caller) -> None:
    await ended(api, ada)

    await later(api, 10_000, Retention())

    kinds = {event["kind"] for event in (await api.operator.fetch("/v1/events", params={"limit": 500}))["items"]}
    assert {"tenant_changed", "quota_changed"} <= kinds


async def test_output_of_a_job_that_runs_is_kept_whatever_its_age(api: Api, ada: Caller) -> None:
    agent = await api.node()
    await ada.submit()
    await api.schedule()
    (lease,) = await agent.leases()
    await agent.write(lease["lease_id"], 0, "hello\n")

    assert (await later(api, 10_000, Retention()))["logs"] == 0


async def test_nothing_is_forgotten_where_the_operator_keeps_all(api: Api, ada: Caller) -> None:
    await put(ada, GOOD)
    await ended(api, ada)
    age(api)
    before = await api.rows()

    await later(api, 10_000, KEEPS_ALL)

    assert {**await api.rows(), "idempotency_record": 0} == {**before, "idempotency_record": 0}


async def test_job_that_names_an_archive_just_before_it_would_go_keeps_it(api: Api, ada: Caller) -> None:
    await put(ada, GOOD)
    unused = await api.store.read(UnusedArchives(clock.now_ms() + DAY_MS))
    await ada.submit(archive_sha256=sha_of(GOOD))

    gone = await api.store.run(ForgetArchives(unused))

    assert (len(unused.named), gone) == (1, [])
