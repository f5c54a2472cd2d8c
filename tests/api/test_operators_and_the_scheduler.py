"""A scheduler that is running follows what operators set by the API: a job that waits for it starts in the next cycle."""

from __future__ import annotations

from typing import Any

import pytest

from executors.nodes import NodesExecutor
from scheduler.service import Loop
from tests.support.api import Api

ALWAYS = {"start": "2020-01-01T00:00:00Z", "end": "2099-01-01T00:00:00Z"}
OTHERS = {"name": "course", "tenant": "globex", "flavor": "h200", "gpus": 8} | ALWAYS
REST = {"name": "rest", "nodes": ["node-1"]} | ALWAYS
BLOCKS: dict[str, tuple[list[tuple[str, str, Any]], tuple[str, str, Any]]] = {
    "a quota of nothing": (
        [("PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 0})],
        ("PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 1_000}),
    ),
    "no cohort to borrow from": (
        [
            ("PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 0}),
            ("PUT", "/v1/cohorts/fleet/quota", {"resource": "h200", "nominal": 4_000}),
        ],
        ("PATCH", "/v1/tenants/acme", {"parent": "fleet"}),
    ),
    "a pool of nothing": (
        [
            ("PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 0}),
            ("PATCH", "/v1/tenants/acme", {"parent": "fleet"}),
        ],
        ("PUT", "/v1/cohorts/fleet/quota", {"resource": "h200", "nominal": 4_000}),
    ),
    "a cap of nothing": (
        [("PATCH", "/v1/quotas/acme/rules", {"user_cap_milli_gpu": 0})],
        ("PATCH", "/v1/quotas/acme/rules", {"user_cap_milli_gpu": None}),
    ),
    "a reservation of somebody else": ([("POST", "/v1/reservations", OTHERS)], ("DELETE", "/v1/reservations/course", None)),
    "maintenance": ([("POST", "/v1/maintenance", REST)], ("DELETE", "/v1/maintenance/rest", None)),
    "a taint": (
        [("PATCH", "/v1/nodes/node-1", {"taints": ["large-jobs"]})],
        ("PATCH", "/v1/nodes/node-1", {"taints": []}),
    ),
    "a cordon": ([("PATCH", "/v1/nodes/node-1", {"is_cordoned": True})], ("PATCH", "/v1/nodes/node-1", {"is_cordoned": False})),
}


@pytest.mark.parametrize(("blocking", "unblocking"), BLOCKS.values(), ids=BLOCKS)
async def test_running_scheduler_follows(api: Api, blocking: list[tuple[str, str, Any]], unblocking: tuple[str, str, Any]) -> None:
    await api.node()
    await api.tenant("globex")
    await api.tenant("acme")
    ada = await api.user("member")
    job = await ada.submit()
    for method, path, body in blocking:
        assert (await api.operator.send(method, path, json=body)).status_code in (200, 201)
    loop = Loop(api.store, NodesExecutor(api.store), holder="tests")
    await loop.step()
    waits = await ada.fetch(f"/v1/jobs/{job['id']}")

    await api.operator.change(*unblocking)
    await loop.step()

    assert (waits["state"], (await ada.fetch(f"/v1/jobs/{job['id']}"))["state"]) == ("queued", "starting")
