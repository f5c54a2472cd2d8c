"""Why a job did not start: a closed set of codes with data, never a sentence.

Sentences are made at the edge (client, console) and never compared. The codes are those of scenario files, in the
order of the gates (design.md section 6). `Reason.data` holds the numbers that explain the code, with the units in their
names, and `unblocks_when` what would change the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

ReasonValue = int | str | bool | None | list[str] | list[int]


class ReasonCode(StrEnum):
    """Closed; a new code is a new promise to every reader of the API."""

    INVALID = "invalid"
    NOT_PERMITTED = "not_permitted"
    EXCEEDS_MAXIMUM = "exceeds_maximum"
    BUDGET_EXHAUSTED = "budget_exhausted"
    QUOTA_EXCEEDED = "quota_exceeded"
    BORROWING_LIMIT = "borrowing_limit"
    USER_CAP = "user_cap"
    DEPENDENCY = "dependency"
    CAPACITY_RESERVED = "capacity_reserved"
    NO_CAPACITY = "no_capacity"
    FRAGMENTED = "fragmented"
    TOPOLOGY = "topology"
    WOULD_DELAY = "would_delay"
    WAITING_FOR_PREEMPTED = "waiting_for_preempted"
    HELD = "held"
    NOT_YET_CONSIDERED = "not_yet_considered"


class Unblock(StrEnum):
    """What would change a refusal: the kind of event to hope for or the person to ask."""

    CHANGE_THE_JOB = "change_the_job"
    MORE_QUOTA = "more_quota"
    OWN_JOB_ENDS = "own_job_ends"
    ANY_JOB_ENDS = "any_job_ends"
    NODE_RETURNS = "node_returns"
    MORE_BUDGET = "more_budget"
    RESERVATION_ENDS = "reservation_ends"
    DEPENDENCY_ENDS = "dependency_ends"
    PERSON_RELEASES = "person_releases"
    NEXT_CYCLE = "next_cycle"


@dataclass(frozen=True, slots=True)
class Reason:
    """One refusal: which gate said no, the numbers, and what would unblock the job."""

    code: ReasonCode
    data: Mapping[str, ReasonValue] = field(default_factory=dict)
    unblocks_when: Unblock = Unblock.NEXT_CYCLE
