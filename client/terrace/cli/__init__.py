"""The `terrace` command: what engineers, operators and finance type. Commands fetch through the SDK; an output object prints."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and end the process with its exit code."""
    from terrace.cli import app

    sys.exit(app.run())
