"""`terraced up`: the whole service on one machine, in the foreground, from one state directory.

Owns: the order of start and stop, and what the person at the terminal sees. The api, the scheduler (with billing) and the node
agent are processes of their own. Start: checks, migration, first operator and node, then the processes. Stop: the agent first, because
it reports the ends of its leases to the api; then the scheduler; then the api.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass

import httpx
from rich.console import Console

from terraced import bootstrap, parts, preflight, processes
from terraced.settings import Settings

READY_SECONDS_MAXIMUM = 60.0
POLL_SECONDS = 0.1
STOP_SECONDS = {"agent": 45.0, "scheduler": 10.0, "api": 10.0}  # in the order in which they stop


@dataclass(frozen=True)
class Started:
    """What the person needs to go on."""

    url: str
    ray_version: str
    devices: int
    is_simulated: bool
    isolation: str


def children_of(settings: Settings) -> list[processes.Child]:
    """Return the three processes in the order in which they stop."""
    given = settings.model_dump(exclude_none=True, exclude=set(parts.PARTS))  # those are in the environment that the children inherit
    environment = {parts.variable(name): str(value) for name, value in given.items()}
    environment.setdefault(parts.variable("is_simulation_allowed"), "true")  # a newcomer's machine has no GPU
    environment["TERRACED_STATE_DIR"] = str(settings.state_dir.resolve())
    environment["TERRACED_IS_EMBEDDED"] = "true"
    environment["TERRACED_JOB_PYTHON"] = str(settings.job_python.absolute())
    return [processes.Child(name, [sys.executable, "-m", "terraced", name], environment, seconds) for name, seconds in STOP_SECONDS.items()]


async def _wait_until_ready(settings: Settings, ray_version: str, children: list[processes.Child]) -> Started:
    key = settings.operator_key_path.read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAXIMUM
    async with httpx.AsyncClient(base_url=settings.effective_api_url, timeout=5.0, headers=headers, trust_env=False) as client:
        while asyncio.get_running_loop().time() < deadline:
            dead = [child.name for child in children if not child.is_alive]
            if dead:
                raise processes.ChildGaveUpError(f"{', '.join(dead)} ended during the start; its last words are above")
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.get(f"/v1/nodes/{settings.node_name}")
                if answer.status_code == httpx.codes.OK and answer.json()["devices"]:
                    node = answer.json()
                    url, isolation = settings.effective_api_url, node["isolation"] or "none"
                    return Started(url, ray_version, len(node["devices"]), node["is_simulated"], isolation)
            await asyncio.sleep(POLL_SECONDS)
    raise processes.ChildGaveUpError(f"the service was not ready after {READY_SECONDS_MAXIMUM:.0f} s")


def _say_ready(console: Console, settings: Settings, started: Started) -> None:
    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False)

    kind = "simulated GPUs (no driver on this machine)" if started.is_simulated else "GPUs"
    say(f"[bold green]Terrace is up[/] at {started.url}   Ray {started.ray_version}, {started.devices} {kind}")
    if started.isolation == "none":
        who = "users of their own" if os.geteuid() == 0 else "this user: they can read the keys and the database below, and one another"
        say(f"[yellow]No user namespaces here:[/] jobs run as {who}. Their Rays listen on all interfaces, behind tokens.")
    say(f"This mode trusts the one user who runs it. State: {settings.state_dir}")
    say("\nTry, in another terminal:")
    say(f"  export TERRACE_URL={started.url} TERRACE_API_KEY=$(cat {settings.operator_key_path})")
    say("  terrace ops tenant create acme && terrace ops quota set acme h200 4")
    say("  terrace ops user create ada --tenant acme --role member && terrace ops key create ada --tenant acme")
    say(f"  unset TERRACE_API_KEY; terrace login --url {started.url}        # with the key that the last command printed")
    say("  cd examples/digits && terrace submit --gpus 1 --watch -- python train.py --epochs 20")
    say("  terrace jobs; terrace quota; terrace usage")
    say("\nCtrl-C stops everything; the next start resumes from the same state.")


async def run(settings: Settings, console: Console) -> int:
    """Run until Ctrl-C or SIGTERM; return the exit status. Raises `preflight.NotReadyError` before anything was started."""
    preflight.prepare_state_dir(settings.state_dir)
    with preflight.lock_state_dir(settings.state_dir):
        preflight.check_port("port", settings.host, settings.port)
        preflight.check_port("agent_metrics_port", "127.0.0.1", settings.agent_metrics_port)
        preflight.check_port("scheduler_metrics_port", "127.0.0.1", settings.scheduler_metrics_port)
        ray_version = preflight.ray_version(settings.job_python)
        bootstrap.prepare_database(settings)
        bootstrap.prepare_embedded_node(settings)
        return await _serve(settings, ray_version, console)


async def _serve(settings: Settings, ray_version: str, console: Console) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    children = children_of(settings)

    async def say_restart(child: processes.Child, code: int) -> None:
        console.print(f"[yellow]{child.name} ended with {code}; starting it again[/]")

    status = 0
    try:
        for child in reversed(children):
            child.start()
        ready = asyncio.create_task(_wait_until_ready(settings, ray_version, children))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            _say_ready(console, settings, ready.result())
            await processes.supervise(children, stop, say_restart)
        ready.cancel()
        stopped.cancel()
    except processes.ChildGaveUpError as error:
        console.print(f"[bold red]{error}[/]")
        status = 1
    finally:
        console.print("Stopping: leases first, then the service.")
        await processes.stop_in_order(children)
    console.print(f"Stopped. State is kept in {os.fspath(settings.state_dir)}.")
    return status
