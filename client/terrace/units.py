"""Amounts as people write and read them: durations, memory, CPUs, GPUs, GPU time and money, always exact.

Owns both directions. Inside everything is an integer with its unit in the name; text that does not come out as such an integer is refused
(InputError names the field), never rounded, and no float is involved. Example: `cpu_milli("cpus", "0.5")` is 500, `cpus(500)` is "0.5".
Does not know options or wire models. Called by the command line and by reasons.py.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from terrace.sdk.errors import InputError

MILLI = 1_000
AMOUNT_DIGITS_MAXIMUM = 18
CURRENCY_DIGITS = {"USD": 6, "VND": 3}  # decimal digits of the smallest accounted unit; a test compares them with the service's
MILLI_GPU_MS_PER_GPU_SECOND = 1_000_000

_DURATION_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(?:\d+[smhd])+")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]i?B?|B)")
_DECIMAL = re.compile(r"\d+(?:\.\d+)?")
_BINARY_PREFIXES = "KMGTP"


def duration_seconds(field: str, text: str) -> int:
    """Return `90s`, `5m`, `2h`, `1d` or `1h30m` in seconds; InputError for anything else, zero included."""
    if not _DURATION.fullmatch(text) or len(text) > AMOUNT_DIGITS_MAXIMUM:
        raise InputError(field, f"{text!r} is not a duration such as 90s, 5m, 2h or 1h30m")
    seconds = sum(int(number) * _DURATION_SECONDS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))
    if seconds == 0:
        raise InputError(field, "must be longer than zero", limit="1s")
    return seconds


def memory_bytes(field: str, text: str) -> int:
    """Return `4GiB`, `512MiB` or `2GB` in bytes. GiB is 2^30, GB is 10^9; a number without a unit is refused, 0 is not."""
    if text == "0":
        return 0
    found = _MEMORY.fullmatch(text)
    if found is None or len(text) > AMOUNT_DIGITS_MAXIMUM:
        raise InputError(field, f"{text!r} is not an amount of memory such as 512MiB, 4GiB or 2GB")
    number, unit = found.groups()
    power = _BINARY_PREFIXES.find(unit[0]) + 1
    base = 1_024 if "i" in unit else 1_000
    return _scaled(field, number, base**power if power else 1, "a byte")


def cpu_milli(field: str, text: str) -> int:
    """Return a number of CPUs such as `4` or `0.5` in milli-CPU."""
    return _scaled(field, text, MILLI, "0.001 CPU")


def milli_gpu(field: str, text: str) -> int:
    """Return a number of GPUs such as `4` or `0.5` in milli-GPU."""
    return _scaled(field, text, MILLI, "0.001 GPU")


def money_units(field: str, text: str, currency: str) -> int:
    """Return an amount of a currency such as `3.50` in its smallest accounted unit."""
    digits = CURRENCY_DIGITS.get(currency)
    if digits is None:
        raise InputError("currency", f"{currency!r} is not known", limit=sorted(CURRENCY_DIGITS))
    return _scaled(field, text, 10**digits, f"10^-{digits} {currency}")


def _scaled(field: str, text: str, scale: int, smallest: str) -> int:
    if not _DECIMAL.fullmatch(text) or len(text) > AMOUNT_DIGITS_MAXIMUM:
        raise InputError(field, f"{text!r} is not a number such as 4 or 0.5")
    try:
        scaled = Decimal(text) * scale
    except InvalidOperation as error:
        raise InputError(field, f"{text!r} is not a number such as 4 or 0.5") from error
    if scaled != scaled.to_integral_value():
        raise InputError(field, f"{text!r} is finer than {smallest}", limit=smallest)
    return int(scaled)


def gpus(amount_milli_gpu: int) -> str:
    """Return milli-GPU as a number of GPUs, with three decimals only where they are needed."""
    whole, part = divmod(amount_milli_gpu, MILLI)
    return f"{whole}.{part:03d}" if part else str(whole)


def cpus(amount_milli: int) -> str:
    """Return milli-CPU as a number of CPUs without trailing zeros."""
    return _decimal(amount_milli, 3, kept=0)


def memory(amount_bytes: int) -> str:
    """Return bytes in the largest binary unit that is exact."""
    amount, power = amount_bytes, 0
    while amount and amount % 1_024 == 0 and power < len(_BINARY_PREFIXES):
        amount, power = amount // 1_024, power + 1
    return f"{amount}{_BINARY_PREFIXES[power - 1]}iB" if power else f"{amount}B"


def memory_about(amount_bytes: int) -> str:
    """Return bytes in a unit that a person reads at a glance, rounded down; for sentences, not for input."""
    amount, power = amount_bytes, 0
    while amount >= 10 * 1_024 and power < len(_BINARY_PREFIXES):
        amount, power = amount // 1_024, power + 1
    return f"{amount} {_BINARY_PREFIXES[power - 1]}iB" if power else f"{amount} B"


def duration(seconds: int) -> str:
    """Return seconds as `duration_seconds` reads them: 5400 is 1h30m."""
    text = ""
    for unit in "dhms":
        count, seconds = divmod(seconds, _DURATION_SECONDS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def duration_about(seconds: int) -> str:
    """Return seconds in at most two units, rounded down, for sentences: 3725 is "1 h 2 min"."""
    names = {"d": "d", "h": "h", "m": "min", "s": "s"}
    parts: list[tuple[int, str]] = []
    for unit in "dhms":
        count, seconds = divmod(seconds, _DURATION_SECONDS[unit])
        if count or parts:
            parts.append((count, names[unit]))
    return " ".join(f"{count} {name}" for count, name in parts[:2] if count) or "0 s"


def gpu_time(amount_milli_gpu_ms: int) -> str:
    """Return milli-GPU milliseconds as H:MM:SS.mmm of one whole GPU, with more digits only where a fraction needs them."""
    seconds, rest = divmod(amount_milli_gpu_ms, MILLI_GPU_MS_PER_GPU_SECOND)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    digits = f"{rest:06d}" if rest % MILLI else f"{rest // MILLI:03d}"
    return f"{hour}:{minute:02d}:{second:02d}.{digits}"


def money(units: int, currency: str) -> str:
    """Return an amount exactly, with all its accounted digits and without the currency; of an unknown currency, its units."""
    digits = CURRENCY_DIGITS.get(currency)
    return f"{units} units" if digits is None else _decimal(units, digits, kept=digits)


def price(units: int, currency: str) -> str:
    """Return an amount exactly, with at least two decimals and the currency: "3.50 USD"."""
    digits = CURRENCY_DIGITS.get(currency)
    return f"{units} units {currency}" if digits is None else f"{_decimal(units, digits, kept=2)} {currency}"


def _decimal(units: int, digits: int, *, kept: int) -> str:
    """Return units / 10^digits without trailing zeros, but with at least `kept` decimals."""
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), 10**digits)
    decimals = f"{part:0{digits}d}".rstrip("0").ljust(kept, "0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
