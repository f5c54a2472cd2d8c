"""What the installation decides with where no operator chose: the policy that operators' choices are laid over."""

from __future__ import annotations

from fastapi import Request

from scheduler.decision.snapshot import Policy


def policy(request: Request) -> Policy:
    """Return the policy without any operator's choice, as the scheduler of this installation has it."""
    return Policy(spans_nodes=request.app.state.settings.gangs_span_nodes)
