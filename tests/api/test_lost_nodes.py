"""An operator gives a lost node up; nobody gives up one that is heard."""

from __future__ import annotations

import asyncio

from tests.support.api import Api
from tests.support.statements import change


async def test_operator_gives_a_lost_node_up_and_it_shows(api: Api) -> None:
    await api.node(gpus=2)
    await asyncio.to_thread(change, api.store, "UPDATE node SET is_lost = true")

    node = await api.operator.change("POST", "/v1/nodes/node-1/gone")

    assert (node["state"], {device["health"] for device in node["devices"]}) == ("gone", {"quarantined"})


async def test_node_that_is_heard_is_not_given_up(api: Api) -> None:
    await api.node(gpus=2)
    before = await api.operator.fetch("/v1/nodes/node-1")

    answer = await api.operator.post("/v1/nodes/node-1/gone")

    assert (answer.status_code, answer.json()["code"]) == (409, "node_not_lost")
    assert await api.operator.fetch("/v1/nodes/node-1") == before
