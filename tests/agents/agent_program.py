"""A node's agent as a program of its own, so that a test can kill it. Reads its settings, as JSON, from the file named by its argument."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from agents import daemon
from agents.device_selection import DeviceSettings
from agents.settings import AgentSettings

PATHS = ("state_dir", "runtime_path")


async def main() -> None:
    """Run until SIGTERM."""
    values: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())  # noqa: ASYNC240  # nothing else runs yet
    devices = DeviceSettings(node_name=values.pop("node"), is_simulation_forced=True)
    paths: dict[str, Any] = {name: Path(values.pop(name)) for name in PATHS}
    settings = AgentSettings(devices=devices, **paths, **values)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await daemon.run(settings, stop)


if __name__ == "__main__":
    asyncio.run(main())
