"""Small scenarios as text, and the command as a subprocess-free call.

Owns the defaults that most scenario tests share: one node of eight h200 and one tenant with eight GPUs of quota.
"""

from __future__ import annotations

from typing import Any

from scheduler.sim import reading
from scheduler.sim.answers import answer
from scheduler.sim.simulate import simulate

WORLD = """
scenario: 1
nodes:
  - {name: n, site: hanoi, gpu_model: h200, gpus: 8, cpus: 128, memory_gib: 1024}
tenants:
  - {name: a, quota: {h200: {nominal: 8}}}
"""


def decided(*parts: str) -> dict[str, Any]:
    """Return what `terraced decide` prints for the usual world and `parts` of YAML."""
    return answer(reading.read(WORLD + "\n".join(parts)))


def simulated(*parts: str, world: str = WORLD) -> dict[str, Any]:
    """Return what `terraced simulate` prints; its stopwatch stands still."""
    return simulate(reading.read(world + "\n".join(parts)), stopwatch=lambda: 0, rss_peak_bytes=lambda: 0)
