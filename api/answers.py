"""From the store's values to the fields of wire answers.

Owns the mapping only. Answers are plain maps, because a batch answers a thousand jobs and pydantic objects would cost more than the
insert; tests hold every map against its wire model. Called by routes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import Response
from pydantic_core import to_json

from api.clock import rfc3339
from store.events import EventView
from store.fleet import NodeView, PriceView
from store.identity import KeyView, ProjectView, TenantView, UserView
from store.job_reads import AttemptView, ClassAnswer, JobView
from store.quotas import QuotaView

MILLISECONDS_PER_SECOND = 1_000
_WAITING_STATES = ("queued", "held")


def response(fields: Mapping[str, Any], status: int = 200) -> Response:
    """Return answer fields as JSON at once, without a pass through pydantic."""
    return Response(to_json(fields), status, media_type="application/json")


def moment(time_ms: int | None) -> str | None:
    """Return a time as RFC 3339 text, None for none."""
    return None if time_ms is None else rfc3339(time_ms)


def job(view: JobView) -> dict[str, Any]:
    """Return the fields of `JobAnswer`. Only a waiting job has a reason and a forecast."""
    is_waiting = view.state in _WAITING_STATES
    return {
        "id": view.id,
        "tenant": view.tenant,
        "project": view.project,
        "user": view.user,
        "name": view.name,
        "state": view.state,
        "target": view.target,
        "entrypoint": view.entrypoint,
        "replicas": view.replicas,
        "gpus": view.slices_per_replica,
        "flavors": view.flavors,
        "cpu_milli": view.cpu_milli_per_replica,
        "memory_bytes": view.memory_bytes_per_replica,
        "sites": view.sites,
        "deny_sites": view.where.denied_sites,
        "prefer_sites": view.where.preferred_sites,
        "node_labels": dict(view.where.labels),
        "tolerates": view.where.tolerates,
        "within": view.where.within.value,
        "limit_seconds": -(-view.limit_ms // MILLISECONDS_PER_SECOND),
        "tier": view.tier,
        "priority": view.priority,
        "attempt": view.attempt,
        "maximum_attempts": view.maximum_attempts,
        "submitted_at": rfc3339(view.submitted_at_ms),
        "started_at": moment(view.started_at_ms),
        "ended_at": moment(view.ended_at_ms),
        "exit_code": view.exit_code,
        "failure_class": view.failure_class,
        "message": view.message,
        "progress": None if view.progress is None else json.loads(view.progress),
        "reason": reason(view.answer) if is_waiting else None,
        "forecast": forecast(view.answer) if is_waiting else None,
    }


def reason(answer: ClassAnswer) -> dict[str, Any]:
    """Return the fields of `ReasonAnswer`; `not_yet_considered` before the scheduler's first answer."""
    if answer.reason_code is None:
        return {"code": "not_yet_considered", "data": {}, "unblocks_when": "next_cycle", "answered_at": moment(answer.answered_at_ms)}
    return {
        "code": answer.reason_code,
        "data": json.loads(answer.reason_data or "{}"),
        "unblocks_when": answer.reason_unblocks_when or "next_cycle",
        "answered_at": moment(answer.answered_at_ms),
    }


def forecast(answer: ClassAnswer) -> dict[str, Any] | None:
    """Return the fields of `ForecastAnswer`, None before the scheduler's first forecast."""
    if answer.forecast_start_ms is None and answer.not_before_ms is None:
        return None
    return {
        "start_at": moment(answer.forecast_start_ms),
        "not_before": moment(answer.not_before_ms),
        "computed_at": moment(answer.answered_at_ms),
    }


def job_detail(view: JobView, attempts: Sequence[AttemptView]) -> dict[str, Any]:
    """Return the fields of `JobDetail`."""
    return job(view) | {"attempts": [_attempt(item) for item in attempts]}


def _attempt(view: AttemptView) -> dict[str, Any]:
    return {
        "number": view.number,
        "lease_id": view.lease_id,
        "created_at": rfc3339(view.created_at_ms),
        "started_at": moment(view.started_at_ms),
        "ended_at": moment(view.ended_at_ms),
        "outcome": view.outcome,
        "exit_code": view.exit_code,
        "failure_class": view.failure_class,
        "message": view.message,
        "slices": [
            {
                "replica": item.replica,
                "node": item.node,
                "device_index": item.device_index,
                "device_uuid": item.device_uuid,
                "milli_gpu": item.milli_gpu,
                "is_simulated": item.is_simulated,
            }
            for item in view.slices
        ],
    }


def tenant(view: TenantView) -> dict[str, Any]:
    """Return the fields of `TenantAnswer`."""
    return {
        "id": view.id,
        "name": view.name,
        "parent": view.parent,
        "weight_milli": view.weight_milli,
        "is_suspended": view.is_suspended,
        "created_at": rfc3339(view.created_at_ms),
    }


def project(view: ProjectView) -> dict[str, Any]:
    """Return the fields of `ProjectAnswer`."""
    return {"id": view.id, "tenant": view.tenant, "name": view.name, "created_at": rfc3339(view.created_at_ms)}


def user(view: UserView) -> dict[str, Any]:
    """Return the fields of `UserAnswer`."""
    return {
        "id": view.id,
        "name": view.name,
        "role": view.role,
        "tenant": view.tenant,
        "is_disabled": view.is_disabled,
        "created_at": rfc3339(view.created_at_ms),
    }


def key(view: KeyView) -> dict[str, Any]:
    """Return the fields of `KeyAnswer`: no secret."""
    return {
        "id": view.id,
        "user_id": view.user_id,
        "name": view.name,
        "scopes": list(view.scopes),
        "node": view.node,
        "created_at": rfc3339(view.created_at_ms),
        "expires_at": moment(view.expires_at_ms),
        "revoked_at": moment(view.revoked_at_ms),
    }


def event(view: EventView) -> dict[str, Any]:
    """Return the fields of `EventAnswer`."""
    return {
        "id": view.id,
        "at": rfc3339(view.at_ms),
        "kind": view.kind,
        "tenant": view.tenant,
        "job_id": view.job_id,
        "lease_id": view.lease_id,
        "node": view.node,
        "data": view.data,
    }


def node(view: NodeView) -> dict[str, Any]:
    """Return the fields of `NodeAnswer`."""
    fields = asdict(view)
    return fields | {"heartbeat_at": moment(fields.pop("heartbeat_at_ms"))}


def price(view: PriceView) -> dict[str, Any]:
    """Return the fields of `PriceAnswer`."""
    fields = asdict(view)
    return fields | {"valid_from": rfc3339(fields.pop("valid_from_ms"))}


def quota(view: QuotaView) -> dict[str, Any]:
    """Return the fields of `QuotaAnswer`."""
    fields = asdict(view)
    return fields | {"valid_from": moment(fields.pop("valid_from_ms")), "valid_until": moment(fields.pop("valid_until_ms"))}
