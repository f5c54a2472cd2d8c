"""What agents of nodes say and ask: assignments, observations, inventory.

A node's key speaks for its own node only; another node is missing. Everything may be sent twice. Archives for agents are in
routes/archives.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from pydantic_core import to_json

from api import answers, clock, observations, problem_codes, routing
from api.permissions import Needs
from store.agent_reports import AcceptReports, Output, Seen
from store.assignments import AssignmentsOfNode
from store.errors import InvalidError, NotFoundError
from store.identity import Principal
from terrace.models.agents import (
    Assignments,
    ObservationAccepted,
    ObservationBatch,
    ObservationKind,
)

router = routing.router("/v1/nodes", "agents")

LOOK_UP_SECONDS = 0.5  # how soon a waiting request notices that its agent left or that this process is told to stop
REREAD_SECONDS = 0.03  # a busy store changes all the time; an agent that waits asks again this often at most

Agent = Annotated[Principal, Depends(Needs("agents:speak"))]
_MISSING = problem_codes.responses("node_not_found")


def check_node(agent: Principal, node: str) -> None:
    """Raise NotFoundError unless the key speaks for this node."""
    if agent.node != node:
        raise NotFoundError("node_not_found", f"there is no node {node!r}", field="node")


@router.get("/{node}/assignments", response_model=Assignments, responses=_MISSING)
async def read_assignments(
    request: Request,
    agent: Agent,
    node: str,
    cursor: Annotated[str | None, Query(max_length=64, description="`cursor` of the answer that the agent has.")] = None,
    wait_seconds: Annotated[float, Query(ge=0, le=30, description="How long to wait for an answer that differs.")] = 0,
) -> Response:
    """Return every open lease of this node; with `cursor`, as soon as the answer differs from the one that the agent has."""
    check_node(agent, node)
    store, changes = request.app.state.store, request.app.state.changes
    deadline = clock.monotonic() + min(wait_seconds, request.app.state.settings.long_poll_seconds_maximum)
    while True:
        mark = changes.mark()
        items = [asdict(item) for item in await store.read(AssignmentsOfNode(node))]
        newest = hashlib.sha256(to_json(items)).hexdigest()[:32]
        remaining = deadline - clock.monotonic()
        if newest != cursor or remaining <= 0 or request.app.state.is_stopping or await request.is_disconnected():
            return answers.response({"cursor": newest, "items": items})
        await changes.wait(mark, min(remaining, LOOK_UP_SECONDS))
        await asyncio.sleep(REREAD_SECONDS)


@router.post("/{node}/observations", response_model=ObservationAccepted, responses=_MISSING)
async def report_observations(request: Request, agent: Agent, node: str, sent: ObservationBatch) -> Any:
    """Take a batch of observations and log chunks; an empty one is a heartbeat. Sending a batch twice changes nothing."""
    check_node(agent, node)
    seen, outputs = [], []
    for position, report in enumerate(sent.observations):
        field = f"observations[{position}]"
        if report.lease_id is None and report.kind is not ObservationKind.DEVICE_HEALTH:
            message = f"{field}.lease_id: what is seen of a lease names it"
            raise InvalidError("invalid_request", message, field=f"{field}.lease_id")
        if report.kind is ObservationKind.LOG:
            offset, data = observations.output(report.data, f"{field}.data")
            outputs.append(Output(report.agent_seq, str(report.lease_id), offset, data))
        else:
            kept = observations.checked(report.kind, report.data, f"{field}.data")
            seen.append(Seen(report.agent_seq, report.kind.value, report.lease_id, clock.to_ms(report.observed_at), kept))
    maximum = request.app.state.settings.log_bytes_per_attempt_maximum
    command = AcceptReports(node, sent.boot_id, seen, outputs, clock.now_ms(), log_bytes_per_attempt_maximum=maximum)
    return {"accepted_through_seq": await request.app.state.store.run(command)}
