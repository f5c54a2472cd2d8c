"""The live scheduler: see loop.py."""

from scheduler.service.loop import Loop, run
from scheduler.service.settings import SchedulerSettings

__all__ = ["Loop", "SchedulerSettings", "run"]
