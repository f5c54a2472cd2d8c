"""Whether the process lives, whether it can serve, and what it counts.

No key is needed, so nothing here tells about tenants. Who may reach these paths from outside is the proxy's business.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api import answers, clock, problem_codes, problems, routing
from store.identity import HasOperator

router = routing.router("", "health")

READY_SECONDS_MAXIMUM = 2.0


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=dict[str, str], responses=problem_codes.responses("not_ready"))
async def readyz(request: Request) -> Response:
    """Say whether the database answers and somebody can operate the service."""
    problem: str | None = None
    try:
        async with asyncio.timeout(READY_SECONDS_MAXIMUM):
            if not await request.app.state.store.read(HasOperator(clock.now_ms())):
                problem = "there is no operator yet: run `terraced init`"
    except Exception as error:  # noqa: BLE001  whatever the database's driver raises, the answer is the same
        problem = f"the database does not answer: {type(error).__name__}"
    if problem is not None:
        return problems.response(problems.body(503, "not_ready", problem, request_id=problems.request_id_of(request)))
    return answers.response({"status": "ok"})


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
async def metrics(request: Request) -> Any:
    """Return the API's metrics for Prometheus."""
    state = request.app.state
    state.measures.waiting.set(state.store.waiting)
    state.measures.streams.set(state.streams.total)
    return Response(generate_latest(state.measures.registry), media_type=CONTENT_TYPE_LATEST)
