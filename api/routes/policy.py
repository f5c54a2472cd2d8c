"""The scheduling policy: what is in force, and changing it field by field. Operators set it, finance may look."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from api import answers, bases, clock, problem_codes, routing
from api.permissions import Needs
from store.identity import Principal
from store.policy import PolicyView, ReadPolicy, SetPolicy
from terrace.models.scheduling import PolicyAnswer, PolicySet

router = routing.router("/v1/policy", "policy")

Reads = Annotated[Principal, Depends(Needs("policy:read"))]
Writes = Annotated[Principal, Depends(Needs("policy:write"))]


@router.get("", response_model=PolicyAnswer)
async def read_policy(request: Request, principal: Reads) -> Any:
    """Return the policy in force, and which of its fields an operator chose."""
    return _answer(await request.app.state.store.read(ReadPolicy(bases.policy(request))))


@router.patch("", response_model=PolicyAnswer, responses=problem_codes.responses("borrows_with_fair_sharing"))
async def set_policy(request: Request, principal: Writes, sent: PolicySet) -> Any:
    """Change fields of the policy; null gives one back the installation's value. The scheduler follows within its next cycle."""
    changes = sent.model_dump(mode="json", exclude_unset=True)
    return _answer(await request.app.state.store.run(SetPolicy(bases.policy(request), changes, clock.now_ms(), principal.user_id)))


def _answer(view: PolicyView) -> dict[str, Any]:
    return {**view.fields, "chosen": list(view.chosen), "set_at": answers.moment(view.set_at_ms)}
