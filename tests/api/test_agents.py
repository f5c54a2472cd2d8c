"""What agents tell and ask: inventory, assignments by long poll, observations that come twice, late, wrong or from users' code."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from store.identity import CreateUser
from tests.support.api import Agent, Api, Caller, inventory, problem_of

INVENTORY = inventory("node-1", gpus=2)
DEVICE = INVENTORY["devices"][0]


@pytest.fixture
async def ada(api: Api) -> Caller:
    """A member of acme."""
    await api.tenant()
    return await api.user("member")


async def leased(api: Api, ada: Caller, agent: Agent) -> str:
    """Let a job begin on the node; return its lease."""
    await ada.submit()
    await api.schedule()
    lease_id: str = (await agent.leases())[0]["lease_id"]
    return lease_id


async def test_inventory_fills_in_the_node_and_again_changes_nothing(api: Api) -> None:
    agent = await api.node(gpus=2)
    before = await api.rows()
    first = await api.operator.fetch("/v1/nodes/node-1")

    again = await agent.report_inventory(gpus=2)

    assert {**again, "heartbeat_at": None} == {**first, "heartbeat_at": None}
    assert (first["gpu_model"], first["milli_gpu_total"], first["is_simulated"], first["state"]) == ("h200", 2_000, True, "ready")
    assert [device["uuid"] for device in first["devices"]] == ["GPU-node-1-0", "GPU-node-1-1"]
    assert await api.rows() == before


async def test_device_that_is_gone_stays_as_faulty_and_comes_back_healthy(api: Api) -> None:
    agent = await api.node(gpus=2)

    lost = await agent.report_inventory(gpus=1)
    back = await agent.report_inventory(gpus=2)

    assert [device["health"] for device in lost["devices"]] == ["healthy", "faulty"]
    assert [device["health"] for device in back["devices"]] == ["healthy", "healthy"]


BAD_INVENTORIES: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "a device of another node": ({"devices": [DEVICE | {"uuid": "GPU-node-2-0"}]}, 409, "device_elsewhere", "devices"),
    "no CPU": ({"cpu_milli": 0}, 422, "invalid_request", "cpu_milli"),
    "more CPU than an integer holds": ({"cpu_milli": 1 << 70}, 422, "invalid_request", "cpu_milli"),
    "more memory than an integer holds": ({"memory_bytes": 1 << 70}, 422, "invalid_request", "memory_bytes"),
    "more device memory than that": ({"devices": [DEVICE | {"memory_bytes": 1 << 70}]}, 422, "invalid_request", "devices[0].memory_bytes"),
    "a model that is no name": ({"devices": [DEVICE | {"gpu_model": "=cmd()"}]}, 422, "invalid_request", "devices[0].gpu_model"),
    "a device beyond the 64th": ({"devices": [DEVICE | {"device_index": 64}]}, 422, "invalid_request", "devices[0].device_index"),
    "65 devices": ({"devices": [DEVICE] * 65}, 422, "invalid_request", "devices"),
    "a null character": ({"devices": [DEVICE | {"uuid": "GPU\0"}]}, 422, "invalid_request", "devices[0].uuid"),
    "an isolation that nobody knows": ({"isolation": "hope"}, 422, "invalid_request", "isolation"),
    "a boot without a name": ({"boot_id": ""}, 422, "invalid_request", "boot_id"),
    "a version of 65 letters": ({"agent_version": "1" * 65}, 422, "invalid_request", "agent_version"),
    "an unknown field": ({"gpus": 8}, 422, "invalid_request", "gpus"),
}  # fmt: skip


async def test_bad_inventory_is_refused_and_changes_nothing(api: Api) -> None:
    agent = await api.node(gpus=2)
    await api.node("node-2", gpus=1)
    before = (await api.rows(), await api.operator.fetch("/v1/nodes"))

    answers = {name: await agent.post("/v1/nodes/node-1/inventory", INVENTORY | case[0]) for name, case in BAD_INVENTORIES.items()}

    assert {name: problem_of(answer)[:3] for name, answer in answers.items()} == {name: case[1:] for name, case in BAD_INVENTORIES.items()}
    assert (await api.rows(), await api.operator.fetch("/v1/nodes")) == before


async def test_poll_without_a_cursor_answers_at_once(api: Api, ada: Caller) -> None:
    agent = await api.node()

    nothing = await agent.fetch("/v1/nodes/node-1/assignments", params={"wait_seconds": 30})

    assert nothing["items"] == []


async def test_poll_waits_until_the_answer_differs(api: Api, ada: Caller) -> None:
    agent = await api.node()
    cursor = (await agent.fetch("/v1/nodes/node-1/assignments"))["cursor"]
    poll = asyncio.create_task(agent.fetch("/v1/nodes/node-1/assignments", params={"cursor": cursor, "wait_seconds": 30}))
    await api.store.run(CreateUser("usr_1", "noise", "operator", None, 0))

    await leased(api, ada, agent)

    answer = await poll
    assert answer["cursor"] != cursor
    assert [(item["role"], item["target"], item["entrypoint"]) for item in answer["items"]] == [("head", "run", ["python", "train.py"])]


async def test_poll_whose_time_is_over_answers_the_same(api: Api) -> None:
    agent = await api.node()
    first = await agent.fetch("/v1/nodes/node-1/assignments")

    again = await agent.fetch("/v1/nodes/node-1/assignments", params={"cursor": first["cursor"], "wait_seconds": 0.05})

    assert again == first


@pytest.mark.parametrize("seconds", ["-1", "31", "nan", "inf", "soon"])
async def test_poll_waits_no_longer_than_it_may(api_on_sqlite: Api, seconds: str) -> None:
    agent = await api_on_sqlite.node()

    answer = await agent.get("/v1/nodes/node-1/assignments", params={"wait_seconds": seconds})

    assert problem_of(answer)[:3] == (422, "invalid_request", "wait_seconds")


async def test_batch_that_comes_twice_counts_once(api: Api, ada: Caller) -> None:
    agent = await api.node()
    lease_id = await leased(api, ada, agent)
    batch = [agent.observation("started", lease=lease_id), agent.observation("log", lease=lease_id, offset=0, text="hello\n")]

    first = await agent.report(batch)
    before = await api.rows()
    again = await agent.report(batch)

    assert first == again == {"accepted_through_seq": 2}
    assert await api.rows() == before
    assert (before["observation"], before["log_chunk"]) == (1, 1)


async def test_empty_batch_is_a_heartbeat(api: Api) -> None:
    agent = await api.node()
    before = (await api.operator.fetch("/v1/nodes/node-1"))["heartbeat_at"]

    answer = await agent.report([])

    assert answer == {"accepted_through_seq": -1}
    assert (await api.operator.fetch("/v1/nodes/node-1"))["heartbeat_at"] >= before


BAD_REPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown kind": ({"kind": "exploded"}, "observations[0].kind"),
    "no lease": ({"lease_id": None}, "observations[0].lease_id"),
    "a lease with a null character": ({"lease_id": "lea\0"}, "observations[0].lease_id"),
    "a negative number": ({"agent_seq": -1}, "observations[0].agent_seq"),
    "a number beyond any": ({"agent_seq": 1 << 60}, "observations[0].agent_seq"),
    "a time without a zone": ({"observed_at": "2026-01-01T00:00:00"}, "observations[0].observed_at"),
    "an unknown field": ({"node": "node-2"}, "observations[0].node"),
    "a failure that nobody knows": ({"kind": "exited", "data": {"failure_class": "bad luck"}}, "observations[0].data.failure_class"),
    "an exit code that is a word": ({"kind": "exited", "data": {"exit_code": "zero"}}, "observations[0].data.exit_code"),
    "an exit code beyond any": ({"kind": "exited", "data": {"exit_code": 1 << 70}}, "observations[0].data.exit_code"),
    "a message that is a list": ({"kind": "exited", "data": {"message": ["a"]}}, "observations[0].data.message"),
    "health that nobody knows": (
        {"kind": "device_health", "data": {"device_uuid": "GPU-node-1-0", "health": "fine"}}, "observations[0].data.health",
    ),
    "health of no device": ({"kind": "device_health", "data": {"health": "healthy"}}, "observations[0].data.device_uuid"),
    "output without an offset": ({"kind": "log", "data": {"text": "a"}}, "observations[0].data.offset"),
    "output with a negative offset": ({"kind": "log", "data": {"offset": -1, "text": "a"}}, "observations[0].data.offset"),
    "output at an offset that is a switch": ({"kind": "log", "data": {"offset": True, "text": "a"}}, "observations[0].data.offset"),
    "output without output": ({"kind": "log", "data": {"offset": 0}}, "observations[0].data.text"),
    "output that is no base64": ({"kind": "log", "data": {"offset": 0, "base64": "é!"}}, "observations[0].data.base64"),
    "too much output in a piece": ({"kind": "log", "data": {"offset": 0, "text": "x" * 65_537}}, "observations[0].data.text"),
}  # fmt: skip


async def test_bad_report_is_refused_with_its_field_and_changes_nothing(api: Api, ada: Caller) -> None:
    agent = await api.node()
    lease_id = await leased(api, ada, agent)
    good = agent.observation("started", lease=lease_id)
    before = await api.rows()

    answers = {
        name: await agent.post("/v1/nodes/node-1/observations", {"boot_id": "boot-of-the-tests", "observations": [good | change]})
        for name, (change, _) in BAD_REPORTS.items()
    }

    assert {name: problem_of(answer)[:3] for name, answer in answers.items()} == {
        name: (422, "invalid_request", field) for name, (_, field) in BAD_REPORTS.items()
    }
    assert await api.rows() == before


async def test_batch_of_too_many_reports_is_refused(api_on_sqlite: Api) -> None:
    agent = await api_on_sqlite.node()
    batch = [agent.observation("started", lease="lea_1") for _ in range(1_001)]

    answer = await agent.post("/v1/nodes/node-1/observations", {"boot_id": "boot-of-the-tests", "observations": batch})

    assert problem_of(answer) == (422, "invalid_request", "observations", 1_000)


async def test_progress_that_users_code_chose_harms_no_reader(api: Api, ada: Caller) -> None:
    agent = await api.node()
    lease_id = await leased(api, ada, agent)
    wild = {"step": 7, "loss": 0.5, "note": "a\0b" + "x" * 10_000, "deep": {"a": [1]}, "list": [1], "nothing": None, "huge": 1 << 60,
            "metrics": {"accuracy": 0.9, "deeper": {"a": 1}}, **{f"k{number}": number for number in range(1_000)}}  # fmt: skip

    await agent.see("started", lease=lease_id)
    await agent.see("progress", lease=lease_id, data=wild)
    await api.schedule()

    (job,) = (await ada.fetch("/v1/jobs"))["items"]
    progress = job["progress"]
    assert (progress["step"], progress["loss"], len(progress) <= 65) == (7, 0.5, True)
    assert progress["note"].startswith("a\N{REPLACEMENT CHARACTER}bxxx")
    assert len(progress["note"]) == 512
    assert {"deep", "list", "nothing", "huge"} & set(progress) == set()


async def test_number_beyond_any_in_progress_is_dropped(api: Api, ada: Caller) -> None:
    agent = await api.node()
    lease_id = await leased(api, ada, agent)
    report = agent.observation("progress", lease=lease_id, step=1)
    body = {"boot_id": "boot-of-the-tests", "observations": [agent.observation("started", lease=lease_id), report]}
    text = json.dumps(body).replace('"step": 1', '"step": 1, "loss": 1e999')

    await agent.send("POST", "/v1/nodes/node-1/observations", content=text, headers={"Content-Type": "application/json"})
    await api.schedule()

    (job,) = (await ada.fetch("/v1/jobs"))["items"]
    assert job["progress"] == {"step": 1}


async def test_health_of_a_device_reaches_the_operator(api: Api) -> None:
    agent = await api.node(gpus=1)
    data = {"device_uuid": "GPU-node-1-0", "health": "quarantined", "detail": "not idle"}

    await agent.report([agent.observation("device_health", lease=None, **data)])
    await api.schedule()

    (device,) = (await api.operator.fetch("/v1/nodes/node-1"))["devices"]
    assert (device["health"], device["health_detail"]) == ("quarantined", "not idle")
