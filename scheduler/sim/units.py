"""The units of scenario files, each read exactly: seconds become milliseconds, GPUs milli-GPU, GiB bytes.

Owns the conversion and the limits of single values. Does not own which field has which unit (scenario.py). A number that
does not come out as an integer in our unit is refused rather than rounded: 0.0005 GPUs would otherwise be 0. Called by
pydantic, so every refusal is a ValueError whose text follows the path of the field.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator

from quotas.amount import UNLIMITED, Amount

MILLI = 1_000
GIB_BYTES = 1 << 30

SECONDS_MAXIMUM = 10**10  # about 317 years
GPUS_MAXIMUM = 10**9
GPUS_PER_REPLICA_MAXIMUM = 256
CPUS_MAXIMUM = 10**9
MEMORY_GIB_MAXIMUM = 10**9
REPLICAS_MAXIMUM = 100_000
PRIORITY_BOUND = 2**31  # what Kubernetes can say, system classes included
COUNT_MAXIMUM = 1_000_000
NAME_LENGTH_MAXIMUM = 253


def _number(value: Any, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number of {what}, not {_described(value)}")
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number of {what}")
    return Decimal(repr(value))


def _described(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _scaled(value: Any, *, what: str, scale: int, smallest: str, minimum: int, maximum: int) -> int:
    number = _number(value, what)
    if not minimum <= number <= maximum:
        raise ValueError(f"must be between {minimum} and {maximum} {what}, not {value}")
    scaled = number * scale
    if scaled != scaled.to_integral_value():
        raise ValueError(f"is finer than {smallest}: {value}")
    return int(scaled)


def _time(value: Any) -> int:
    return _scaled(value, what="seconds", scale=MILLI, smallest="a millisecond", minimum=-SECONDS_MAXIMUM, maximum=SECONDS_MAXIMUM)


def _duration(value: Any) -> int:
    return _scaled(value, what="seconds", scale=MILLI, smallest="a millisecond", minimum=0, maximum=SECONDS_MAXIMUM)


def _limit(value: Any) -> int:
    limit_ms = _duration(value)
    if limit_ms == 0:
        raise ValueError("must be more than 0 seconds")
    return limit_ms


def _gpus(value: Any) -> int:
    milli = _scaled(value, what="GPUs", scale=MILLI, smallest="0.001 GPU", minimum=0, maximum=GPUS_PER_REPLICA_MAXIMUM)
    if milli > MILLI and milli % MILLI:
        raise ValueError(f"must be 0, an integer or a fraction below 1, not {value}")
    return milli


def _quota_gpus(value: Any) -> Amount:
    if value is None:
        return UNLIMITED
    return Amount(_scaled(value, what="GPUs", scale=MILLI, smallest="0.001 GPU", minimum=0, maximum=GPUS_MAXIMUM))


def _quota_cpus(value: Any) -> Amount:
    return UNLIMITED if value is None else Amount(_cpus(value))


def _quota_memory(value: Any) -> Amount:
    return UNLIMITED if value is None else Amount(_memory(value))


def _cpus(value: Any) -> int:
    return _scaled(value, what="CPUs", scale=MILLI, smallest="0.001 CPU", minimum=0, maximum=CPUS_MAXIMUM)


def _memory(value: Any) -> int:
    # A number of bytes divided by 2**30 is exact in binary and seldom in the 17 digits that stand for it, so both readings count.
    if isinstance(value, float) and 0 <= value <= MEMORY_GIB_MAXIMUM and (value * GIB_BYTES).is_integer():
        return int(value * GIB_BYTES)
    return _scaled(value, what="GiB", scale=GIB_BYTES, smallest="a byte", minimum=0, maximum=MEMORY_GIB_MAXIMUM)


def _weight(value: Any) -> Fraction:
    number = _number(value, "weight")
    if number < 0:
        raise ValueError(f"must be 0 or more, not {value}")
    return Fraction(number)


def _integer(value: Any, *, minimum: int, maximum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be an integer, not {_described(value)}")
    if not minimum <= value <= maximum:
        raise ValueError(f"must be between {minimum} and {maximum}, not {value}")
    return value


def integer(minimum: int, maximum: int) -> BeforeValidator:
    """Return a validator for an integer within bounds; true and 1.0 are no integers."""
    return BeforeValidator(lambda value: _integer(value, minimum=minimum, maximum=maximum))


def _ratio(value: Any) -> Fraction:
    number = _number(value, "ratio")
    if not 0 <= number <= 1:
        raise ValueError(f"must be between 0 and 1, not {value}")
    return Fraction(number)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {_described(value)}")
    if not value or len(value) > NAME_LENGTH_MAXIMUM or value != value.strip() or not value.isprintable():
        raise ValueError(f"must be 1 to {NAME_LENGTH_MAXIMUM} printable characters without spaces around them")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_described(value)}")
    return value


TimeMs = Annotated[int, BeforeValidator(_time)]
DurationMs = Annotated[int, BeforeValidator(_duration)]
LimitMs = Annotated[int, BeforeValidator(_limit)]
MilliGpu = Annotated[int, BeforeValidator(_gpus)]
QuotaMilliGpu = Annotated[Amount, BeforeValidator(_quota_gpus)]
QuotaMilliCpu = Annotated[Amount, BeforeValidator(_quota_cpus)]
QuotaMemoryBytes = Annotated[Amount, BeforeValidator(_quota_memory)]
MilliCpu = Annotated[int, BeforeValidator(_cpus)]
MemoryBytes = Annotated[int, BeforeValidator(_memory)]
Weight = Annotated[Fraction, BeforeValidator(_weight)]
Ratio = Annotated[Fraction, BeforeValidator(_ratio)]
Name = Annotated[str, BeforeValidator(_name)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Priority = Annotated[int, integer(-PRIORITY_BOUND, PRIORITY_BOUND)]
Replicas = Annotated[int, integer(1, REPLICAS_MAXIMUM)]
Count = Annotated[int, integer(1, COUNT_MAXIMUM)]
DeviceIndex = Annotated[int, integer(0, GPUS_PER_REPLICA_MAXIMUM - 1)]
