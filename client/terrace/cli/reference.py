"""The reference part of docs/cli.md: every command with its arguments and options, written from the command itself.

`python -m terrace.cli.reference docs/cli.md` rewrites what stands between the two marks; a test compares it, so that no option is missing
from the document. Global options are described once, in the part that is written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from terrace.cli import app
from terrace.cli.session import GLOBAL_PARAMETERS

BEGIN = "<!-- Written by `python -m terrace.cli.reference docs/cli.md`; edit the commands instead. -->"
END = "<!-- End of the reference. -->"
_SHARED = {parameter.name for parameter in GLOBAL_PARAMETERS}
_OF_TYPER = {"install_completion", "show_completion", "is_version", "help"}


def markdown() -> str:
    """Return the reference of every command, in order."""
    return "\n".join(line for path, found in commands() for line in _command(path, found)).rstrip() + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Yield (`terrace ops key create`, the command) for every command that does something."""
    yield from _walk("terrace", typer.main.get_command(app.make()))


def own_parameters(command: Any) -> list[Any]:
    """Return a command's arguments and options without the global ones."""
    return [parameter for parameter in command.params if parameter.name not in _SHARED | _OF_TYPER]


def usage(path: str, command: Any) -> str:
    """Return the one line that says how a command is called."""
    words = [path]
    parameters = own_parameters(command)
    if any(parameter.param_type_name == "option" for parameter in parameters):
        words.append("[OPTIONS]")
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            name = parameter.metavar.strip("[]")
            words.append("[-- COMMAND...]" if name == "COMMAND" else name if parameter.required else f"[{name}]")
    return " ".join(words)


def rewritten(document: str) -> str:
    """Return a document with the reference between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown()}\n{END}{after}"


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from _walk(f"{path} {name}", child)


def _command(path: str, command: Any) -> Iterator[str]:
    yield f"### `{path}`"
    yield ""
    yield command.help.strip().splitlines()[0]
    yield ""
    yield f"    {usage(path, command)}"
    yield ""
    parameters = own_parameters(command)
    if parameters:
        yield "| option | meaning |"
        yield "| --- | --- |"
        yield from (f"| {_names(parameter)} | {_cell(parameter.help)}{_default(parameter)} |" for parameter in parameters)
        yield ""


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar.strip('[]')}`"
    names = [*parameter.opts, *parameter.secondary_opts]
    value = f" {parameter.metavar}" if parameter.metavar else ""
    return ", ".join(f"`{name}{value}`" for name in names)


def _default(parameter: Any) -> str:
    is_shown = isinstance(parameter.default, str | int) and not isinstance(parameter.default, bool)
    return f" (default: {parameter.default})" if is_shown else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(rewritten(document.read_text(encoding="utf-8")), encoding="utf-8")
