"""What agents of nodes say and ask: assignments, observations, inventory.

A node's key speaks for its own node only; another node is missing. Everything may be sent twice. Archives for agents are in
routes/archives.py.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic_core import to_json

from api import answers, clock
from api.permissions import Needs
from store.agent_reports import AcceptReports, Output, Seen
from store.assignments import AssignmentsOfNode
from store.errors import InvalidError, NotFoundError
from store.identity import Principal
from terrace.models.agents import (
    LOG_CHUNK_BYTES_MAXIMUM,
    Assignments,
    ObservationAccepted,
    ObservationBatch,
    ObservationKind,
    ObservationReport,
)

router = APIRouter(prefix="/v1/nodes", tags=["agents"])

LOOK_UP_SECONDS = 0.5  # how soon a waiting request notices that its agent left or that this process is told to stop
REREAD_SECONDS = 0.03  # a busy store changes all the time; an agent that waits asks again this often at most
OFFSET_MAXIMUM = 1 << 50
SEQUENCE_MAXIMUM = 1 << 53

Agent = Annotated[Principal, Depends(Needs("agents:speak"))]


def check_node(agent: Principal, node: str) -> None:
    """Raise NotFoundError unless the key speaks for this node."""
    if agent.node != node:
        raise NotFoundError("node_not_found", f"there is no node {node!r}", field="node")


@router.get("/{node}/assignments", response_model=Assignments)
async def read_assignments(
    request: Request,
    agent: Agent,
    node: str,
    cursor: Annotated[str | None, Query(max_length=64, description="`cursor` of the answer that the agent has.")] = None,
    wait_seconds: Annotated[float, Query(ge=0, le=30, description="How long to wait for an answer that differs.")] = 0,
) -> Response:
    """Return every open lease of this node; with `cursor`, as soon as the answer differs from the one that the agent has."""
    check_node(agent, node)
    store = request.app.state.store
    deadline = clock.monotonic() + min(wait_seconds, request.app.state.settings.long_poll_seconds_maximum)
    while True:
        mark = store.change_mark()
        items = [asdict(item) for item in await store.read(AssignmentsOfNode(node))]
        newest = hashlib.sha256(to_json(items)).hexdigest()[:32]
        remaining = deadline - clock.monotonic()
        if newest != cursor or remaining <= 0 or request.app.state.is_stopping or await request.is_disconnected():
            return answers.response({"cursor": newest, "items": items})
        await store.wait_for_change(mark, min(remaining, LOOK_UP_SECONDS))
        await asyncio.sleep(REREAD_SECONDS)


@router.post("/{node}/observations", response_model=ObservationAccepted)
async def report_observations(request: Request, agent: Agent, node: str, sent: ObservationBatch) -> Any:
    """Take a batch of observations and log chunks; an empty one is a heartbeat. Sending a batch twice changes nothing."""
    check_node(agent, node)
    seen, outputs = [], []
    for position, report in enumerate(sent.observations):
        field = f"observations[{position}]"
        if report.agent_seq > SEQUENCE_MAXIMUM:
            raise InvalidError("invalid_request", f"{field}.agent_seq: too large", field=f"{field}.agent_seq", limit=SEQUENCE_MAXIMUM)
        if report.kind is ObservationKind.LOG:
            outputs.append(_output(report, field))
        else:
            seen.append(Seen(report.agent_seq, report.kind.value, report.lease_id, clock.to_ms(report.observed_at), report.data))
    maximum = request.app.state.settings.log_bytes_per_attempt_maximum
    command = AcceptReports(node, sent.boot_id, seen, outputs, clock.now_ms(), log_bytes_per_attempt_maximum=maximum)
    return {"accepted_through_seq": await request.app.state.store.run(command)}


def _output(report: ObservationReport, field: str) -> Output:
    """Return a log observation's bytes: `text`, or `base64` for output that is not UTF-8."""
    offset, text, encoded = report.data.get("offset"), report.data.get("text"), report.data.get("base64")
    if report.lease_id is None:
        raise InvalidError("invalid_request", f"{field}.lease_id: a log needs its lease", field=f"{field}.lease_id")
    if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset <= OFFSET_MAXIMUM:
        path = f"{field}.data.offset"
        raise InvalidError("invalid_request", f"{path}: must be an integer from 0 to {OFFSET_MAXIMUM}", field=path, limit=OFFSET_MAXIMUM)
    try:
        data = text.encode() if isinstance(text, str) else base64.b64decode(str(encoded), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise InvalidError("invalid_request", f"{field}.data: needs `text` or `base64`", field=f"{field}.data") from error
    if len(data) > LOG_CHUNK_BYTES_MAXIMUM:
        message = f"{field}.data: a chunk has at most {LOG_CHUNK_BYTES_MAXIMUM} bytes"
        raise InvalidError("invalid_request", message, field=f"{field}.data", limit=LOG_CHUNK_BYTES_MAXIMUM)
    return Output(report.agent_seq, report.lease_id, offset, data)
