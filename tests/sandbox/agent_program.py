"""An agent with one lease, as a program of its own: so that a test can kill it, or run it as somebody else.

Reads {"settings", "spec"} from the file named by its argument. Prints one JSON object a line: the handle, then every event.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

from agents.sandbox.spec import EventKind, Isolation, LeaseSpec, SandboxSettings
from agents.sandbox.supervise import Sandbox

POLL_SECONDS = 0.05


def main() -> None:
    """Run the lease to its end."""
    order = json.loads(Path(sys.argv[1]).read_text())
    isolation = order["settings"].pop("isolation")
    paths: dict[str, Any] = {name: Path(value) for name, value in order["settings"].items()}
    spec: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in order["spec"].items()}
    sandbox = Sandbox(SandboxSettings(isolation=Isolation(isolation) if isolation else None, **paths))
    print(json.dumps(sandbox.start(LeaseSpec(**spec)).to_json()), flush=True)
    pause = threading.Event()
    while True:
        for event in sandbox.poll():
            print(json.dumps({"kind": event.kind, "data": event.data}), flush=True)
            if event.kind is EventKind.GONE:
                sandbox.discard()
                return
        pause.wait(POLL_SECONDS)


if __name__ == "__main__":
    main()
