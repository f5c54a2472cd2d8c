"""Taking: when a job that does not fit may have others stopped for it, on which of its flavors, and what it needs of them.

Owns the questions around a search for victims: whether the policy allows one, which resources are lacking, and which flavor is best.
Does not own the search (preempt.py) or the states that it works on (ground.py). A job that fits once those who already leave have left
needs no victims of its own. Among flavors, one where nothing is taken from the own tenant is better, then one without borrowing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from domain.reasons import Reason, ReasonCode
from quotas.tree import Fungibility, Preemption, WhenCanBorrow
from scheduler.decision import gate, preempt, victims
from scheduler.decision.gate import Option
from scheduler.decision.ground import Ground
from scheduler.decision.occupants import Occupants
from scheduler.decision.order import Entry
from scheduler.decision.plan import PreemptionCause
from scheduler.decision.preempt import Found, Place
from scheduler.decision.snapshot import RunningJob, Snapshot
from scheduler.decision.users import Users
from scheduler.decision.victims import Request
from scheduler.decision.windows import Window

_NEVER = Preemption()


class Taking:
    """The searches of one decision. `prepare` is called before the later state changes; `place` looks for a place in it."""

    def __init__(self, snapshot: Snapshot, ground: Ground, users: Users, *, place: Place, prepare: Callable[[str | None], object]) -> None:
        self._snapshot = snapshot
        self._ground = ground
        self._users = users
        self._place = place
        self._prepare = prepare
        self._occupants: Occupants | None = None
        self.releases_ms = snapshot.now_ms + snapshot.policy.preemption_grace_ms

    @property
    def occupants(self) -> Occupants:
        """The possible victims; found when somebody asks for the first time."""
        if self._occupants is None:
            self._occupants = Occupants(self._snapshot)
        return self._occupants

    def would_stop(self, entry: Entry, option: Option, refusal: Reason, choice: Fungibility) -> bool:
        """Tell whether a job takes this flavor by preemption rather than look at the next one."""
        found = self._search(entry, option, refusal)
        if found is None:
            return False
        borrows = self._borrows(entry, option)  # once the victims are gone
        self._undo(found)
        return choice.when_can_borrow is WhenCanBorrow.BORROW or not borrows

    def best(self, entry: Entry, refused: Sequence[tuple[Option, Reason]]) -> tuple[Option, Found] | None:
        """Return the flavor on which the job can start once others have left, with the victims cleared from the later state."""
        if len(refused) == 1:
            option, refusal = refused[0]
            found = self._search(entry, option, refusal)
            return None if found is None else (option, found)
        ranked: list[tuple[tuple[bool, bool, int], Option, Found]] = []
        for at, (option, refusal) in enumerate(refused):
            found = self._search(entry, option, refusal)
            if found is not None:
                takes_own = any(victim.cause is PreemptionCause.WITHIN_TENANT for victim in found.victims)
                ranked.append(((takes_own, self._borrows(entry, option), at), option, found))
                self._undo(found)
        if not ranked:
            return None
        _, option, found = min(ranked, key=lambda item: item[0])
        for victim in found.victims:
            self._ground.later.tree.remove(victim.occupant.leaf, victim.occupant.usage)
            self._ground.later.fleet.give_back(victim.occupant.members, victim.occupant.running.shape)
        return option, found

    def inside(self, entry: Entry, option: Option, window: Window, place: Place) -> Found | None:
        """Return what has to leave a capacity reservation for one of its tenant's jobs: only others, and only from its devices."""
        tree, key = self._ground.later.tree, entry.job_class.key
        self._prepare(option.model)
        request = Request(key, entry.job, option, (), _NEVER)
        if gate.lacking(tree, key.tenant, option):
            return None
        if self._ground.is_parted and (members := place(request)) is not None:
            return Found(members, ())
        others = [item for item in self.occupants.on(window.devices) if window.tenant not in tree.path(item.leaf)]
        return preempt.clear_window(self._ground.later, self.occupants, place, request, others)

    def leaving(self, found: Found) -> list[tuple[str, int]]:
        """Return the jobs whose leaving a nomination waits for, and when they are gone at the latest."""
        if found.victims:
            return [(victim.occupant.running.job, self._gone_ms(victim.occupant.running)) for victim in found.victims]
        return [(job.job, job.releases_ms) for job in self._snapshot.running if job.releases_ms is not None]

    def _gone_ms(self, job: RunningJob) -> int:
        return self.releases_ms if job.grace_ms is None else self._snapshot.now_ms + job.grace_ms

    def _borrows(self, entry: Entry, option: Option) -> bool:
        return self._ground.later.tree.borrows_with(entry.job_class.key.tenant, option.usage)

    def _search(self, entry: Entry, option: Option, refusal: Reason) -> Found | None:
        later, key = self._ground.later, entry.job_class.key
        # What is in the way is somebody else's turn, or the user's own cap: nobody's leaving would help.
        if refusal.code is ReasonCode.WOULD_DELAY or self._users.over_cap(key) is not None:
            return None
        policy = later.tree.preemption_of(key.tenant)
        if policy == _NEVER and not self._ground.is_parted:
            return None
        self._prepare(option.model)
        lacking = gate.lacking(later.tree, key.tenant, option)
        needed = lacking or ((option.model,) if option.model is not None else tuple(option.usage))
        request = Request(key, entry.job, option, needed, policy)
        if self._ground.is_parted and not lacking and (members := self._place(request)) is not None:
            return Found(members, ())
        fair_sharing = self._snapshot.policy.fair_sharing
        if policy == _NEVER or (lacking and not victims.may_ask(later.tree, request, fair_sharing=fair_sharing)):
            return None
        return preempt.find(later, self.occupants, self._place, request, fair_sharing=fair_sharing)

    def _undo(self, found: Found) -> None:
        for victim in found.victims:
            self._ground.later.tree.add(victim.occupant.leaf, victim.occupant.usage)
            self._ground.later.fleet.take(victim.occupant.members, victim.occupant.running.shape)
