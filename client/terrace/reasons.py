"""Why a job waits, in words: a table from the service's reason codes to sentences with their numbers.

Owns the sentences. Codes and numbers are the service's (`ReasonAnswer.code` and `.data`); sentences are for people, may change, and are
never compared. A code or an unblocking event that this client does not know yet is shown as it came, with its numbers, so that an older
client hides nothing. Example: `sentence("quota_exceeded", {"resource": "h200", "needed_milli_gpu": 2000, ...})`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from terrace import units
from terrace.models.jobs import ForecastAnswer

Data = Mapping[str, Any]

_NOT_YET = "The scheduler has not looked at it yet; it does so at every change, at least once a second."


def sentence(code: str, data: Data) -> str:
    """Return why a job waits. Missing numbers leave their part of the sentence out."""
    words = SENTENCES.get(code)
    return _unknown("reason", code, data) if words is None else words(data)


def unblocking(unblocks_when: str) -> str:
    """Return what would let the job start."""
    return UNBLOCKING.get(unblocks_when) or _unknown("event", unblocks_when, {})


def forecast(answer: ForecastAnswer | None, now: datetime) -> str:
    """Return when the job should start, and how old that answer is."""
    moment = None if answer is None else answer.start_at or answer.not_before
    if answer is None or moment is None:
        return "No forecast yet."
    ahead = int((moment - now).total_seconds())
    away = f"in {units.duration_about(ahead)}" if ahead > 0 else "now due"
    age = "" if answer.computed_at is None else f"; computed {_age(answer.computed_at, now)}"
    words = "Expected to start at" if answer.start_at is not None else "It cannot start before"
    return f"{words} {local(moment)} ({away}{age})."


def local(moment: datetime) -> str:
    """Return a moment in this machine's time zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _age(moment: datetime, now: datetime) -> str:
    seconds = int((now - moment).total_seconds())
    return f"{units.duration_about(seconds)} ago" if seconds > 0 else "just now"


def now_utc() -> datetime:
    """Return the time now, for `forecast`."""
    return datetime.now(UTC)


def _unknown(what: str, code: str, data: Data) -> str:
    numbers = ", ".join(f"{name} {value}" for name, value in sorted(data.items()))
    return f"The service gives the {what} {code}" + (f" ({numbers})" if numbers else "") + ", which this client does not know yet."


def _amount(data: Data, name: str) -> str | None:
    """Return the amount whose key begins with `name`, in the words of its unit; None when it is not there or unlimited."""
    milli_gpu, cpu_milli, memory_bytes = (data.get(f"{name}_{unit}") for unit in ("milli_gpu", "cpu_milli", "memory_bytes"))
    if isinstance(milli_gpu, int):
        return f"{units.gpus(milli_gpu)} {data.get('resource', 'GPUs')}"
    if isinstance(cpu_milli, int):
        return f"{units.cpus(cpu_milli)} CPUs"
    return f"{units.memory_about(memory_bytes)} of memory" if isinstance(memory_bytes, int) else None


def _joined(*parts: str | None) -> str:
    return " ".join(part for part in parts if part)


def _invalid(data: Data) -> str:
    return f"No decision can be made for it: its {data.get('field', 'specification')} is not valid."


def _not_permitted(data: Data) -> str:
    flavors = ", ".join(str(flavor) for flavor in data.get("flavors", ())) or "what it asks for"
    return f"Its tenant has no quota for {flavors}."


def _exceeds_maximum(data: Data) -> str:
    if data.get("limit") == "fleet":
        room, wanted = data.get("maximum_replicas", 0), data.get("replicas", "?")
        largest = data.get("largest_node_gpus")
        of_node = "" if largest is None else f", and its largest node has {largest}"
        return (
            f"It asks for {wanted} replicas of {data.get('gpus_per_replica', '?')} GPUs; "
            f"the fleet, standing empty, has room for {room} such replicas{of_node}."
        )
    return f"It asks for {_amount(data, 'needed') or 'more'}; its quota, with all borrowing, can never give more than {_most(data)}."


def _most(data: Data) -> str:
    return _amount(data, "maximum") or "it has"


def _quota(data: Data, *, ending: str) -> str:
    nominal, used = _amount(data, "nominal"), _amount(data, "used")
    held = f"Its tenant holds {used or 'some'}" + (f" of a quota of {nominal}." if nominal else ".")
    needed, free = _amount(data, "needed"), _amount(data, "available")
    wanted = f"This job needs {needed}" + (f", and {free} may still be taken{ending}." if free else f"{ending}.") if needed else None
    return _joined(held, wanted)


def _quota_exceeded(data: Data) -> str:
    return _quota(data, ending="")


def _borrowing_limit(data: Data) -> str:
    return _quota(data, ending=" before the borrowing limit")


def _user_cap(data: Data) -> str:
    return _joined("Its user holds as much as one user may.", _quota_numbers(data))


def _budget_exhausted(data: Data) -> str:
    return _joined("The budget that pays for it is spent.", _money_numbers(data))


def _dependency(data: Data) -> str:
    jobs = ", ".join(str(job) for job in data.get("depends_on", ())) or "another job"
    return f"It waits until {jobs} has succeeded."


def _capacity_reserved(data: Data) -> str:
    what = "a maintenance of nodes" if "maintenance" in data else "a capacity reservation"
    told = _joined(
        f"What it needs is set aside by {what}",
        f"from {_moment(data['starts_ms'])} to {_moment(data['ends_ms'])}" if _has_window(data) else None,
    )
    longest_ms = data.get("longest_limit_ms")
    return (
        f"{told}."
        if not longest_ms
        else f"{told}. A time limit of at most {units.duration_about(longest_ms // units.MILLI)} would fit before it."
    )


def _has_window(data: Data) -> bool:
    return isinstance(data.get("starts_ms"), int) and isinstance(data.get("ends_ms"), int)


def _no_capacity(data: Data) -> str:
    if data.get("needed_gpus") is None or data.get("free_gpus", 0) >= data["needed_gpus"]:
        return _joined("No node has enough CPU or memory free.", _cpu_and_memory(data))
    return f"{_gang(data)}; {data.get('free_gpus', 0)} {data.get('gpu_model', 'GPUs')} are free now."


def _fragmented(data: Data) -> str:
    scattered = (
        f"{data.get('free_gpus', '?')} {data.get('gpu_model', 'GPUs')} are free, but scattered over "
        f"{data.get('nodes_with_free_gpus', '?')} nodes; the largest free block is {data.get('largest_free_block_gpus', '?')}."
    )
    return _joined(f"{_gang(data)}.", scattered, _cpu_and_memory(data))


def _topology(data: Data) -> str:
    return f"{_gang(data)}. Enough {data.get('gpu_model', 'GPUs')} are free, but not on one site, and a job never spans two."


def _would_delay(data: Data) -> str:
    from_ms, limit_ms = data.get("held_from_ms"), data.get("limit_ms")
    limit = "" if limit_ms is None else f" It may run for {units.duration_about(limit_ms // units.MILLI)}; a shorter limit may fit before."
    since = "" if from_ms is None else f", which is to start at {_moment(from_ms)}"
    return f"It would fit now, but would delay a job that comes before it{since}.{limit}"


def _waiting_for_preempted(data: Data) -> str:
    count = len(data.get("victims") or ()) + (data.get("victims_of_others") or 0)
    jobs = "Another job is" if count == 1 else "Other jobs are" if not count else f"{count} jobs are"
    gone_ms = data.get("releases_by_ms")
    return f"{jobs} being stopped for it" + (f" and gone by {_moment(gone_ms)} at the latest." if isinstance(gone_ms, int) else ".")


def _held(data: Data) -> str:
    return _joined("It is on hold and waits for a person.", f"Given reason: {data['note']}." if data.get("note") else None)


def _gang(data: Data) -> str:
    replicas, each = data.get("replicas", 1), data.get("gpus_per_replica", "?")
    model, needed = data.get("gpu_model", "GPUs"), data.get("needed_gpus", "?")
    return f"It needs {needed} {model}" if replicas == 1 else f"It needs {needed} {model} at once ({replicas} replicas of {each})"


def _cpu_and_memory(data: Data) -> str | None:
    parts = []
    if "cpu_milli_per_replica" in data:
        free = data.get("largest_free_cpu_milli", 0)
        parts.append(f"a replica needs {units.cpus(data['cpu_milli_per_replica'])} CPUs, at most {units.cpus(free)} are free on one node")
    if "memory_bytes_per_replica" in data:
        needed, free = data["memory_bytes_per_replica"], data.get("largest_free_memory_bytes", 0)
        parts.append(f"a replica needs {units.memory_about(needed)} of memory, at most {units.memory_about(free)} are free on one node")
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "." if text else None


def _quota_numbers(data: Data) -> str | None:
    used, most = _amount(data, "used"), _amount(data, "maximum")
    return f"Held: {used}, allowed: {most}." if used and most else None


def _money_numbers(data: Data) -> str | None:
    spent, limit, currency = data.get("spent_units"), data.get("limit_units"), data.get("currency")
    if isinstance(spent, int) and isinstance(limit, int) and isinstance(currency, str):
        return f"Spent: {units.price(spent, currency)} of {units.price(limit, currency)}."
    return None


def _moment(time_ms: int) -> str:
    return local(datetime.fromtimestamp(time_ms // units.MILLI, UTC))


SENTENCES: dict[str, Callable[[Data], str]] = {
    "invalid": _invalid,
    "not_permitted": _not_permitted,
    "exceeds_maximum": _exceeds_maximum,
    "budget_exhausted": _budget_exhausted,
    "quota_exceeded": _quota_exceeded,
    "borrowing_limit": _borrowing_limit,
    "user_cap": _user_cap,
    "dependency": _dependency,
    "capacity_reserved": _capacity_reserved,
    "no_capacity": _no_capacity,
    "fragmented": _fragmented,
    "topology": _topology,
    "would_delay": _would_delay,
    "waiting_for_preempted": _waiting_for_preempted,
    "held": _held,
    "not_yet_considered": lambda _: _NOT_YET,
}

UNBLOCKING: dict[str, str] = {
    "change_the_job": "It will not start as it is: ask for less, or for something else.",
    "more_quota": "It will not start without more quota: an operator gives it.",
    "own_job_ends": "It can start when other jobs of its tenant end, or with more quota.",
    "any_job_ends": "It can start when running jobs end.",
    "node_returns": "It can start when nodes that are cordoned, drained, lost or faulty come back.",
    "more_budget": "It can start when there is money for it again.",
    "reservation_ends": "It can start when the capacity reservation ends.",
    "dependency_ends": "It can start when the jobs that it depends on have succeeded.",
    "person_releases": "It goes on when a person releases it.",
    "next_cycle": "The next look of the scheduler decides.",
}
