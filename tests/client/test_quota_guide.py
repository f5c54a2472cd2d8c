"""The commands of docs/guides/quotas.md are typed as they stand, and print what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.client.command import Terrace
from tests.client.service import Service
from tests.support.service import REPOSITORY

GUIDE = (REPOSITORY / "docs/guides/quotas.md").read_text()
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
MANIFEST = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


def typed(blocks: list[str]) -> list[tuple[str, list[str]]]:
    """Return each command with the lines that follow it."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(blocks).splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ terrace "), []))
        else:
            found[-1][1].append(line)
    return found


def test_commands_of_the_guide_print_what_it_says(operator: Terrace, service: Service) -> None:
    service.add_node(gpus=16)
    (manifest,) = MANIFEST.findall(GUIDE)
    Path("queues.yaml").write_text(manifest)

    said = []
    for command, _ in typed(CONSOLE.findall(GUIDE)):
        ended = operator(*shlex.split(command))
        said.append((command, (ended.out + ended.err).splitlines()))

    assert said == typed(CONSOLE.findall(GUIDE))
    assert len(said) >= 25
