"""A small world of rows for tests of the store: built by the store's own commands, in the order in which life would bring them.

Names stand for themselves: tenant `acme` has the identifier `ten_acme`, its project `prj_acme` and its member `usr_acme`. Time is `now_ms`
and moves only when a test moves it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from domain.jobs import Shape
from store import binding, fleet, identity, jobs, leader, leases, plans, quotas, seed
from store.agent_reports import AcceptReports, Output, Seen
from store.engine import Store
from store.job_reads import AttemptView, JobView, JobWithAttempts

T0_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
GIB = 1 << 30


class World:
    """Rows of one test. `run` does a command, `read` answers a question; the rest builds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_ms = T0_MS
        self._numbers = itertools.count(1)
        self._fence: leader.Fence | None = None
        self.run(seed.Seed(T0_MS))

    def run(self, command: Any) -> Any:
        return self.store.run_blocking(command)

    def read(self, query: Any) -> Any:
        return self.store.read_blocking(query)

    def new(self, kind: str) -> str:
        """Return an identifier that sorts after the earlier ones."""
        return f"{kind}_{next(self._numbers):06}"

    def tenant(self, name: str, *, gpus: int | None = 8, parent: str | None = None) -> str:
        """Make a tenant with a member and a quota of h200; return its identifier."""
        self.run(identity.CreateTenant(f"ten_{name}", f"prj_{name}", name, parent, 1_000, self.now_ms))
        self.run(identity.CreateUser(f"usr_{name}", name, "member", name, self.now_ms))
        if gpus is not None:
            self.quota(name, gpus)
        return f"ten_{name}"

    def quota(self, tenant: str | None, gpus: int, **fields: Any) -> quotas.QuotaView:
        """Give a tenant a quota of h200 from now on."""
        given: dict[str, Any] = {
            "borrowing_limit": None,
            "lending_limit": None,
            "valid_from_ms": self.now_ms,
            "valid_until_ms": None,
            "project": None,
        }
        given |= {"resource": "h200", "nominal": gpus * 1_000} | fields
        view: quotas.QuotaView = self.run(quotas.SetQuota(id=self.new("quo"), tenant=tenant, now_ms=self.now_ms, **given))
        return view

    def node(self, name: str, *, gpus: int = 8, **fields: Any) -> fleet.NodeView:
        """Make a node whose agent has sent its inventory."""
        self.run(fleet.CreateNode(f"nod_{name}", name, "hanoi", None, self.now_ms))
        return self.inventory(name, gpus=gpus, **fields)

    def inventory(self, name: str, *, gpus: int = 8, boot: str = "boot-1", is_simulated: bool = False) -> fleet.NodeView:
        """Let a node's agent say what it has."""
        devices = [device(name, index, is_simulated=is_simulated) for index in range(gpus)]
        view: fleet.NodeView = self.run(fleet.AcceptInventory(name, boot, "1.0", 64_000, 512 * GIB, "namespaces", devices, self.now_ms))
        return view

    def submission(self, *, tenant: str = "acme", count: int = 1, gpus: int = 1, replicas: int = 1, **fields: Any) -> jobs.SubmitJobs:
        """Return the command that submits `count` jobs of one shape."""
        shape = Shape(("h200",) if gpus else (), replicas, gpus)
        key = jobs.class_key(f"ten_{tenant}", f"prj_{tenant}", shape, limit_ms=HOUR_MS, priority=0)
        given: dict[str, Any] = {
            "name": None,
            "project": "default",
            "tier": "standard",
            "archive_sha256": None,
            "requirements": None,
            "maximum_attempts": 3,
        }
        given |= {"entrypoint": ["python", "train.py"], "environment": {"SEED": "1"}}
        new = [jobs.NewJob(**{"id": self.new("job"), **given, **fields}, job_class=key, shape=shape) for _ in range(count)]
        return jobs.SubmitJobs(jobs.Submitter(f"ten_{tenant}", tenant, f"usr_{tenant}", tenant), new, self.now_ms)

    def job(self, **fields: Any) -> str:
        """Submit one job; return its identifier."""
        views: list[JobView] = self.run(self.submission(**fields))
        return views[0].id

    def view(self, job: str) -> JobView:
        """Return a job."""
        return self.attempts(job)[0]

    def attempts(self, job: str) -> tuple[JobView, tuple[AttemptView, ...]]:
        """Return a job with its attempts."""
        found: tuple[JobView, tuple[AttemptView, ...]] = self.read(JobWithAttempts(job))
        return found

    @property
    def fence(self) -> leader.Fence:
        """The right of the leading scheduler."""
        if self._fence is None:
            self._fence = self.run(leader.TakeLead("scheduler", "sch_1", self.now_ms, 5_000))
        assert self._fence is not None
        return self._fence

    def start(self, job: str, *, on: Sequence[tuple[str, int]], lease: str | None = None, attempt: int = 1) -> binding.StartToBind:
        """Return the start of a job with one replica on the devices (node, index), as a plan would name it."""
        slices = [binding.SliceToBind(0, f"nod_{node}", f"GPU-{node}-{index}", 1_000) for node, index in on]
        nodes = [slice_.node_id for slice_ in slices[:1]]
        return binding.StartToBind(
            lease or self.new("lea"), "token", job, attempt, "h200", 1_000 * len(slices), slices, nodes, [node for node, _ in on[:1]]
        )

    def bind(self, *starts: binding.StartToBind) -> tuple[str, ...]:
        """Apply starts as the leading scheduler; return the leases that were bound."""
        bound = self.run(plans.ApplyPlan(self.fence, self.now_ms, starts)).bound
        return tuple(lease.id for lease in bound)

    def lease(self, job: str, *, on: Sequence[tuple[str, int]], attempt: int = 1) -> str:
        """Start a job and return its lease."""
        (bound,) = self.bind(self.start(job, on=on, attempt=attempt))
        return bound

    def apply(self, *changes: leases.Change) -> int:
        """Apply changes as the leading scheduler."""
        count: int = self.run(leases.ApplyChanges(self.fence, changes, self.now_ms))
        return count

    def open_lease(self, lease: str) -> leases.OpenLease:
        """Return an open lease."""
        (found,) = self.read(leases.OpenLeases([lease]))
        assert isinstance(found, leases.OpenLease)
        return found

    def run_to_the_end(self, lease: str, *, running_ms: int = 1_000, ended_ms: int = 61_000, released_ms: int = 62_000) -> None:
        """Let a lease run, succeed and be released, at times counted from its grant."""
        open_lease = self.open_lease(lease)
        granted_ms, version = open_lease.granted_at_ms, open_lease.job_version
        started, ended, released = (granted_ms + after for after in (running_ms, ended_ms, released_ms))
        self.now_ms = released
        done = {"ended_at_ms": ended, "exit_code": 0}
        nodes = tuple(part.node_id for part in open_lease.parts)
        self.apply(
            leases.Change(
                lease, lease={"running_at_ms": started}, attempt={"started_at_ms": started},
                job_version=version, job={"state": "running", "started_at_ms": started},
            ),
            leases.Change(
                lease, lease={"ended_at_ms": ended, "end_cause": "completed", "target": "stop"}, attempt={**done, "outcome": "completed"},
                job_version=version + 1, job={**done, "state": "succeeded"}, events=(("job_succeeded", {}),),
            ),
            leases.Change(lease, lease={"released_at_ms": released}, gone_node_ids=nodes, is_released=True),
        )  # fmt: skip

    def report(
        self, node: str, *, seen: Sequence[Seen] = (), outputs: Sequence[Output] = (), boot: str = "boot-1", cap: int = 1_000
    ) -> int:
        """Let an agent send a batch; return the sequence number that it may forget."""
        through: int = self.run(AcceptReports(node, boot, seen, outputs, self.now_ms, cap))
        return through


def device(node: str, index: int, *, is_simulated: bool = False) -> fleet.ReportedDevice:
    """Return a device as an agent reports it."""
    return fleet.ReportedDevice(f"GPU-{node}-{index}", index, "h200", 141 * GIB, cells=1, is_simulated=is_simulated)
