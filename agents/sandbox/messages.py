"""What a lease's runner may say, checked: it lives among users' code, so nothing of it is believed unseen.

Owns: the kinds of lines, their fields, types and bounds. Does not own: framing (the runner's side is terrace.runtime.channel) or what
follows from a line (supervise.py). What passes here can be kept, sent and shown by everybody behind: no lone surrogate, no NUL in a
message, no number that a database or a reader of JSON cannot hold.
"""

from __future__ import annotations

import json
from typing import Any

from agents.sandbox.spec import FailureClass
from terrace.runtime import progress

MESSAGE_CHARACTERS_MAX = 4_000
TEXT_CHARACTERS_MAX = 64 * 1024
PIDS_MAX = 16_384
NUMBER_MAX = 1 << 53


class MessageError(ValueError):
    """A line that no runner of ours would send."""


def checked(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return (kind, data) of a line; MessageError when it is not one of those below."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"no JSON: {line[:100]!r}") from error
    if not isinstance(message, dict):
        raise MessageError(f"no object: {line[:100]!r}")
    check = _CHECKS.get(str(message.pop("kind", None)))
    if check is None:
        raise MessageError(f"of unknown kind: {line[:100]!r}")
    return check(message)


def _hello(_message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "hello", {}


def _ready(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "ready", {"ray_version": _text(message, "ray_version", 100), "took_ms": _number(message, "took_ms")}


def _listening(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    pids = message.get("pids")
    if not isinstance(pids, list) or len(pids) > PIDS_MAX or not all(isinstance(pid, int) and 0 < pid <= NUMBER_MAX for pid in pids):
        raise MessageError("pids: must be a list of process ids")
    return "listening", {"pids": pids}


def _started(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "started", {"pid": _number(message, "pid")}


def _log(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "log", {"offset": _number(message, "offset"), "text": _whole(_string(message, "text"))[:TEXT_CHARACTERS_MAX]}


def _progress(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if not progress.is_report(message):
        raise MessageError("no progress report")
    return "progress", message


def _exited(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name = message.get("failure_class")
    if name is not None and name not in list(FailureClass):
        raise MessageError(f"failure_class: unknown: {str(name)[:100]!r}")
    code = None if message.get("exit_code") is None else _number(message, "exit_code")
    words = _text(message, "message", MESSAGE_CHARACTERS_MAX)
    return "exited", {"exit_code": code, "failure_class": name, "message": words, "was_stopped": message.get("was_stopped") is True}


_CHECKS = {
    "hello": _hello,
    "ready": _ready,
    "listening": _listening,
    "started": _started,
    "log": _log,
    "progress": _progress,
    "exited": _exited,
}


def _number(message: dict[str, Any], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > NUMBER_MAX:
        raise MessageError(f"{name}: must be an integer")
    return value


def _string(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise MessageError(f"{name}: must be a text")
    return value


def _text(message: dict[str, Any], name: str, characters_max: int) -> str:
    return _whole(_string(message, name)).replace("\0", "\N{REPLACEMENT CHARACTER}")[:characters_max]


def _whole(text: str) -> str:
    """Return the text with what is no character replaced: half a surrogate pair cannot be encoded."""
    return text.encode("utf-8", "replace").decode()
