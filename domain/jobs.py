"""What a job asks for: the specification that submit, scenario files and the decision core share.

A job is `replicas` identical members, a gang: all of them start together or none does. Each replica asks for
`slices_per_replica` slices of one flavor, CPU and memory. The shape is what decisions look at; jobs of one shape in
one project at one priority form a class.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What one job occupies. `flavors` is an order of preference; empty when no GPU is asked for."""

    flavors: tuple[str, ...]
    replicas: int
    slices_per_replica: int
    milli_gpu_per_slice: int = 1_000
    cpu_milli_per_replica: int = 0
    memory_bytes_per_replica: int = 0
    sites: tuple[str, ...] = ()

    @property
    def slices(self) -> int:
        """Slices that the whole gang needs."""
        return self.replicas * self.slices_per_replica

    @property
    def milli_gpu(self) -> int:
        """Milli-GPU that the whole gang holds."""
        return self.slices * self.milli_gpu_per_slice
