"""What a simulated device shows of a real lease: use and energy that follow the CPU time of its processes, marked as simulated."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from agents.daemon import Agent
from agents.metrics import AgentCollector
from agents.simulated import FULL_MILLIWATT, IDLE_MILLIWATT
from tests.agents.node_world import World

BUSY = """
import time
print("RUNNING", flush=True)
while time.process_time() < 2:
    pass
"""


def scraped(agent: Agent) -> list[tuple[str, dict[str, str], float]]:
    """Return (name, labels, value) of every sample that Prometheus would see now."""
    registry = CollectorRegistry()
    registry.register(AgentCollector(agent.telemetry.snapshot, version="1"))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def total(samples: list[tuple[str, dict[str, str], float]], name: str, lease_id: str) -> float:
    return sum(value for found, labels, value in samples if found == name and labels.get("lease") == lease_id)


async def test_use_and_energy_of_simulated_devices_follow_the_cpu_time_of_the_lease(world: World) -> None:
    job_id = await world.submit(BUSY, gpus=2)
    async with world.running() as agent:
        await world.until(world.has_ended(job_id))
        await world.until(world.is_free)
        samples, lease_id = scraped(agent), await world.lease_of(job_id)

    cpu, leased, busy, energy = (
        total(samples, name, lease_id)
        for name in (
            "terrace_lease_cpu_seconds_total",
            "terrace_slice_leased_gpu_seconds_total",
            "terrace_slice_busy_gpu_seconds_total",
            "terrace_slice_energy_joules_total",
        )
    )
    assert cpu >= 1.5
    assert 0 < busy <= cpu
    assert busy < leased
    idle_joules, more_watts = leased * IDLE_MILLIWATT / 1_000, (FULL_MILLIWATT - IDLE_MILLIWATT) / 1_000
    assert idle_joules < energy <= idle_joules + more_watts * cpu + IDLE_MILLIWATT / 1_000


async def test_everything_that_a_simulated_node_shows_says_so(world: World) -> None:
    async with world.running() as agent:
        samples = scraped(agent)

    assert {labels["simulated"] for _, labels, _ in samples} == {"true"}
