"""Whether the process lives, whether it can serve, and what it counts. No key is needed; nothing here tells about tenants."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api import answers
from store.identity import HasOperator

router = APIRouter(tags=["health"])

READY_SECONDS_MAXIMUM = 2.0


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "The database does not answer, or there is no operator yet."}})
async def readyz(request: Request) -> Response:
    """Say whether the database answers and somebody can operate the service."""
    problem: str | None = None
    try:
        async with asyncio.timeout(READY_SECONDS_MAXIMUM):
            if not await request.app.state.store.read(HasOperator()):
                problem = "there is no operator yet: run `terraced init`"
    except Exception as error:  # noqa: BLE001  whatever the database's driver raises, the answer is the same
        problem = f"the database does not answer: {type(error).__name__}"
    return answers.response({"status": "ok"}) if problem is None else answers.response({"status": "not ready", "detail": problem}, 503)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Any:
    """Return the API's metrics for Prometheus."""
    state = request.app.state
    state.measures.waiting.set(state.store.waiting)
    state.measures.streams.set(state.open_streams)
    return Response(generate_latest(state.measures.registry), media_type=CONTENT_TYPE_LATEST)
