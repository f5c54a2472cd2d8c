"""The agent's own limits end a start before the scheduler's do, so that whoever is to blame is known."""

from __future__ import annotations

from pathlib import Path

from agents.device_selection import DeviceSettings
from agents.settings import AgentSettings
from scheduler.service import SchedulerSettings
from tests.agents.node_world import World, packed

HEARING_MS = 30_000  # of the lease, and of the word that it failed


def test_limits_of_the_agent_end_before_the_scheduler_s_deadline() -> None:
    settings = AgentSettings(api_url="-", token="-", state_dir=Path("-"), job_python="-", devices=DeviceSettings(node_name="-"))

    assert settings.start_ms_maximum + HEARING_MS <= SchedulerSettings().start_deadline_ms


async def test_archive_that_the_service_never_gives_ends_the_start_with_the_reason(world: World) -> None:
    job_id = await world.submit("print(1)", archive=packed({"x": "y"}), maximum_attempts=1)
    world.wire.is_without_archives = True
    async with world.running(archive_seconds=0.3):
        job = await world.until(world.has_ended(job_id))

    assert (job["state"], job["failure_class"]) == ("failed", "platform")
    assert job["message"].startswith("archive: not here after archive_seconds = 0.3: ")
    assert "404" in job["message"]
