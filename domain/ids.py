"""Identifiers: what they look like and how they are made from given entropy.

An identifier is a short kind prefix, an underscore and 20 lower-case base-32 characters (100 bits): `job_0a1b...`.
The first 10 characters carry the creation time in milliseconds, so identifiers of one kind sort by age and database
indexes grow at one end. Entropy and time are passed in: this package has neither a clock nor chance.
"""

from __future__ import annotations

import re

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ENTROPY_BYTES = 7
NAME_LENGTH_MAX = 63

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IDENTIFIER = re.compile(r"[a-z]{2,8}_[0-9a-hjkmnp-tv-z]{20}")


_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]  # two characters at a time: a start makes several


def _base32(number: int) -> str:
    """Return the ten characters of the lowest 50 bits."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in (40, 30, 20, 10, 0)])


def make(kind: str, *, now_ms: int, entropy: bytes) -> str:
    """Return a new identifier of `kind` ("job", "lea", ...) from a time and at least `ENTROPY_BYTES` random bytes."""
    if len(entropy) < ENTROPY_BYTES:
        raise ValueError(f"entropy: needs {ENTROPY_BYTES} bytes, got {len(entropy)}")
    return f"{kind}_{_base32(now_ms)}{_base32(int.from_bytes(entropy, 'big'))}"


def is_identifier(text: str) -> bool:
    """Tell whether `text` has the form of an identifier that `make` returns."""
    return _IDENTIFIER.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Tell whether `text` can name a tenant, project or node: a DNS label of at most `NAME_LENGTH_MAX` characters."""
    return _NAME.fullmatch(text) is not None
