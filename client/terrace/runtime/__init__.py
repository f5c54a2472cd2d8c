"""What a job may import while it runs: `context()`, `report_progress()`, `report_checkpoint()`. Standard library only."""

from __future__ import annotations

from terrace.runtime.context import JobContext, NotInALeaseError, context
from terrace.runtime.progress import report_checkpoint, report_progress

__all__ = ["JobContext", "NotInALeaseError", "context", "report_checkpoint", "report_progress"]
