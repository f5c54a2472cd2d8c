"""The `terrace` command: what engineers, operators and finance type. Commands fetch through the SDK; an output object prints."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and end the process with its exit code."""
    # httpx loads its own command with all that paints it, a quarter of the time that ours takes to start, and does without when it cannot.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]  # how Python is told that a module cannot be imported
    from terrace.cli import app

    sys.exit(app.run())
