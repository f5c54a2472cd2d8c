"""Server-sent events: reading them, and resuming a stream that was cut.

Owns: the line format and the loop that opens the stream again after the last event that arrived (Last-Event-ID). Does not own: what an
event means. A stream is over when its `end` event arrives; anything else is a cut. Each event is delivered once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from terrace.sdk import transport
from terrace.sdk.errors import ApiError, UnreachableError
from terrace.sdk.transport import Transport

CUTS_MAXIMUM = 20  # in a row, without anything whole in between
END = "end"
EVENT_BYTES_MAXIMUM = 4 << 20


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream. `id` is the last one that the service sent, None before the first.

    Without kind and data it is no event: it only moves the id.
    """

    kind: str
    data: str
    id: str | None


def split_lines(blocks: Iterable[bytes]) -> Iterator[str]:
    """Yield whole lines. Only line feeds end one: a log may hold every other character that Python calls a line break."""
    rest: list[bytes] = []  # joined once per line, so that a long line costs its length and not its square
    size = 0
    for block in blocks:
        if b"\n" in block:
            *lines, last = b"".join([*rest, block]).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", "replace").removesuffix("\r")
            rest, size = [last], len(last)
        else:
            rest.append(block)
            size += len(block)
        if size > EVENT_BYTES_MAXIMUM:
            raise UnreachableError(f"the stream sent a line of more than {EVENT_BYTES_MAXIMUM} bytes")


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of a stream's lines. An event without its final empty line was cut and is not delivered."""
    kind, data, identifier = "message", list[str](), None
    size, is_moved = 0, False
    for line in lines:
        if not line:
            if data:
                yield Event(kind, "\n".join(data), identifier)
            elif is_moved:
                yield Event("", "", identifier)
            kind, data, size, is_moved = "message", [], 0, False
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        size += len(line)
        if size > EVENT_BYTES_MAXIMUM:
            raise UnreachableError(f"the stream sent an event of more than {EVENT_BYTES_MAXIMUM} bytes")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            identifier, is_moved = value, True


def follow(
    wire: Transport, path: str, params: Callable[[], Mapping[str, Any]], *, last_event_id: str | None = None, is_endless: bool = False
) -> Iterator[Event]:
    """Yield events until `end` (which is yielded too), across cuts. `params` is asked at each opening.

    `is_endless` streams have no `end`: they are opened again whenever they stop. UnreachableError after `CUTS_MAXIMUM` cuts in a row; a
    stream that said anything whole, if only that it lives, starts the count anew: the service ends every one after an hour.
    """
    cuts = 0

    def counted(lines: Iterable[str]) -> Iterator[str]:
        nonlocal cuts
        for line in lines:
            cuts = cuts if line else 0  # an empty line ends an event, or a comment that says that the service lives
            yield line

    while True:
        try:
            with wire.stream(path, params=params(), last_event_id=last_event_id) as answer:
                for event in parse(counted(split_lines(answer.iter_bytes()))):
                    last_event_id = event.id if event.id is not None else last_event_id
                    if event.kind:
                        yield event
                    if event.kind == END and not is_endless:
                        return
            cause: Exception = ConnectionError("the stream stopped before its end")
        except httpx.TransportError as error:
            cause = error
        except ApiError as error:
            if not error.is_passing:
                raise
            cause = error
        cuts += 1
        if cuts >= CUTS_MAXIMUM:
            raise transport.unreachable(wire.url, cause)
        wire.pause(transport.backoff_seconds(cuts))
