"""From "queued" to the first line of user code, beside plain Ray doing a fresh head and one submit in the same run.

Ours: the clock starts before the submit call of the SDK against a running, idle service; a job prints the time as its first line. Between
the two lie the API, the scheduler, the lease, the agent, the namespaces, a fresh private Ray cluster and its job API. Plain Ray: the clock
starts before `ray start --head` in a network namespace of its own; the same program is submitted through the same job API. The two
take turns. Prints JSON rows for `make bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import terrace
from benchmarks.embedded import embedded

ROUNDS = 5
WAIT_SECONDS_MAXIMUM = 90
MARK = "first line at "
PROGRAM = f"import time; print('{MARK}'.strip(), time.time(), flush=True)"
HERE = Path(__file__).parent


def ours_seconds(client: terrace.Client) -> float:
    """Submit one job and return the time to its first line."""
    began = time.time()
    job = client.submit(["python", "-c", PROGRAM], gpus=1, limit_seconds=300)
    ended = client.wait(job.id, timeout_seconds=WAIT_SECONDS_MAXIMUM, poll_seconds=0.2)
    text = client.logs_text(job.id)
    if ended.state != "succeeded":
        raise RuntimeError(f"{job.id} ended as {ended.state}: {ended.message}\n{text}")
    return first_line_at(text) - began


def first_line_at(text: str) -> float:
    """Return the time that the user's program printed."""
    return next(float(line.removeprefix(MARK)) for line in text.splitlines() if line.startswith(MARK))


def plain_ray(job_python: Path) -> dict[str, float]:
    """Run plain Ray once in namespaces of its own and return its seconds."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc", str(job_python), str(HERE / "plain_ray.py")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=2 * WAIT_SECONDS_MAXIMUM, check=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def make_member(url: str, operator_key: str) -> terrace.Client:
    """Make a startup with a quota and return its member's client."""
    operator = terrace.Client(url, operator_key)
    operator.create_tenant("bench")
    operator.set_quota("bench", "h200", nominal=8_000)
    user = operator.create_user("bench", role="member", tenant="bench")
    return terrace.Client(url, operator.create_key(user_id=user.id).secret)


def main() -> None:
    """Take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job-python", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    ours: list[float] = []
    plain: list[float] = []
    with embedded(options.job_python) as service, make_member(service.url, service.operator_key) as client:
        for _ in range(options.rounds):
            ours.append(ours_seconds(client))
            plain.append(plain_ray(options.job_python)["seconds"])
    figure, peer = statistics.median(ours), statistics.median(plain)
    note = f"ours {min(ours):.2f} to {max(ours):.2f}, plain Ray {min(plain):.2f} to {max(plain):.2f}, {options.rounds} rounds each"
    row = {
        "bench": "first_line", "case": "submit to first line, fresh private cluster", "figure": round(figure, 2), "unit": "s",
        "peer": "plain Ray, fresh head + submit", "peer_figure": round(peer, 2), "ratio": round(figure / peer, 2), "note": note,
    }  # fmt: skip
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
