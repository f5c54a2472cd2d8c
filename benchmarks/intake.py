"""Durable submits per second over HTTP, with authentication, idempotency and validation on.

Starts the real API as a process on loopback over a temporary SQLite state, and beside it a bare FastAPI route that keeps nothing, and
loads both with the same raw client in the same run: 1, 4 and 16 connections, and batches. After each case the rows are counted: a 201
without its row is an error. Prints JSON rows for `make bench`. Slurm's figures are those of the peer's measurement on such a machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.intake_server import Ready, count_jobs

SECONDS = 4.0
WARM_UP_REQUESTS = 200
ROUNDS = 3
START_SECONDS_MAXIMUM = 30.0
SLURM_PER_SECOND = {1: 788, 4: 1_171}  # with 16 clients it was not measured
BATCH_JOBS = 100
SPEC = {
    "name": "bench",
    "entrypoint": ["python", "train.py", "--epochs", "3"],
    "gpus": 1,
    "flavors": ["h200"],
    "limit_seconds": 3_600,
    "environment": {"SEED": "1"},
}


@dataclass(frozen=True)
class Load:
    """What one case did: requests answered, and their latencies in seconds."""

    requests: int
    seconds: float
    latencies: list[float]

    def p99_ms(self) -> float:
        """Return the 99th percentile in milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[98] * 1_000


@contextmanager
def served(kind: str, directory: Path) -> Iterator[Ready]:
    """Run a server process and yield how to reach it."""
    command = [sys.executable, "-m", "benchmarks.intake_server", kind, str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Ready(**json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(START_SECONDS_MAXIMUM)


def request_bytes(ready: Ready, path: str, body: bytes, key: str) -> bytes:
    """Return a whole HTTP request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {ready.bearer}\r\nIdempotency-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def one_connection(ready: Ready, path: str, body: bytes, *, name: str, until: float, at_least: int = 0) -> list[float]:
    """Send one request after the other until the time is over; return the latencies."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ready.port)
    latencies: list[float] = []
    try:
        while time.perf_counter() < until or len(latencies) < at_least:
            began = time.perf_counter()
            writer.write(request_bytes(ready, path, body, f"{name}-{len(latencies)}"))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 201"):
                raise RuntimeError(f"{head.decode()}{answer[:500].decode()}")
            latencies.append(time.perf_counter() - began)
    finally:
        writer.close()
    return latencies


async def load(ready: Ready, path: str, body: bytes, *, clients: int, name: str, seconds: float) -> Load:
    """Load the server with `clients` connections for a while."""
    began = time.perf_counter()
    tasks = [one_connection(ready, path, body, name=f"{name}-{number}", until=began + seconds) for number in range(clients)]
    latencies = [latency for some in await asyncio.gather(*tasks) for latency in some]
    return Load(len(latencies), time.perf_counter() - began, latencies)


async def warm_up(ready: Ready, path: str, body: bytes) -> int:
    """Make the server ready for measuring; return how many requests that took."""
    return len(await one_connection(ready, path, body, name=f"warm{path}", until=0.0, at_least=WARM_UP_REQUESTS))


async def measure(ready: Ready, path: str, spec: object, *, clients: int, name: str, seconds: float) -> Load:
    """Return the round with the median rate of `ROUNDS`."""
    body = json.dumps(spec).encode()
    rounds = [await load(ready, path, body, clients=clients, name=f"{name}-{number}", seconds=seconds) for number in range(ROUNDS)]
    return sorted(rounds, key=lambda item: item.requests / item.seconds)[ROUNDS // 2]


def row(case: str, found: Load, *, jobs_per_request: int, clients: int, note: str) -> None:
    """Print one figure, beside the peer's with as many clients where that was measured."""
    figure = found.requests * jobs_per_request / found.seconds
    fields: dict[str, object] = {"bench": "intake", "case": f"{case}, {clients} clients", "figure": round(figure), "unit": "jobs/s"}
    peer_figure = SLURM_PER_SECOND.get(clients)
    if peer_figure is None:
        fields |= {"peer": "Slurm", "peer_figure": "not measured"}
    else:
        fields |= {"peer": "Slurm", "peer_figure": peer_figure, "ratio": round(figure / peer_figure, 2)}
    fields["note"] = f"p99 {found.p99_ms():.1f} ms; {note}"
    print(json.dumps(fields), flush=True)


async def run(directory: Path, seconds: float) -> None:
    """Measure every case."""
    bare: dict[int, Load] = {}
    with served("bare", directory) as ready:
        await warm_up(ready, "/bare", json.dumps(SPEC).encode())
        for clients in (1, 4, 16):
            bare[clients] = await measure(ready, "/bare", SPEC, clients=clients, name=f"bare{clients}", seconds=seconds)
    with served("api", directory) as ready:
        await warm_up(ready, "/v1/jobs", json.dumps(SPEC).encode())
        for clients in (1, 4, 16):
            found = await measure(ready, "/v1/jobs", SPEC, clients=clients, name=f"one{clients}", seconds=seconds)
            share = found.requests / found.seconds / (bare[clients].requests / bare[clients].seconds)
            note = f"{share:.0%} of the bare route's {bare[clients].requests / bare[clients].seconds:.0f}/s"
            row("single", found, jobs_per_request=1, clients=clients, note=note)
        batch = {"jobs": [SPEC] * BATCH_JOBS}
        for clients in (1, 4):
            found = await measure(ready, "/v1/jobs/batch", batch, clients=clients, name=f"batch{clients}", seconds=seconds)
            row(f"batch of {BATCH_JOBS}", found, jobs_per_request=BATCH_JOBS, clients=clients, note="per job")
        accepted = int(ready.counted())
    stored = count_jobs(directory)
    if stored != accepted:
        raise RuntimeError(f"{accepted} jobs were accepted, {stored} are stored")


def main() -> None:
    """Run in a temporary directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of one round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="terrace-intake-") as directory:
        asyncio.run(run(Path(directory), arguments.seconds))


if __name__ == "__main__":
    main()
