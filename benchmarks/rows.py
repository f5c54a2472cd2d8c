"""A fleet, tenants and queued jobs as rows, for measurements that drive the store and the live loop without HTTP.

Writes through the store's own commands, like the service does. Used by benchmarks.store and benchmarks.starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from domain.jobs import Shape
from store import migrate
from store.engine import Store
from store.fleet import AcceptInventory, CreateNode, ReportedDevice
from store.identity import CreateTenant, CreateUser
from store.jobs import NewJob, SubmitJobs, Submitter, class_key
from store.quotas import SetQuota
from store.seed import Seed

MODEL = "h200"
MIB = 1 << 20
HOUR_MS = 3_600_000


@dataclass
class Rows:
    """An open, migrated database and the tenants in it."""

    store: Store
    now_ms: int
    tenants: list[Submitter]
    submitted: int = 0

    @classmethod
    def begin(cls, url: str, *, tenants: int, milli_gpu_per_tenant: int, now_ms: int) -> Rows:
        """Migrate the database and make tenants with a quota each."""
        migrate.upgrade(url)
        store = Store.open(url)
        store.run_blocking(Seed(now_ms))
        made = []
        for number in range(tenants):
            name = f"t{number}"
            tenant = store.run_blocking(CreateTenant(f"ten_{number}", f"prj_{number}", name, None, 1_000, now_ms))
            quota = SetQuota(f"quo_{number}", name, None, MODEL, milli_gpu_per_tenant, None, None, 0, None, now_ms)
            store.run_blocking(quota)
            user = store.run_blocking(CreateUser(f"usr_{number}", f"u{number}", "member", name, now_ms))
            made.append(Submitter(tenant.id, name, user.id, user.name))
        return cls(store, now_ms, made)

    def add_nodes(self, count: int, *, devices: int) -> None:
        """Register nodes with their devices, as their agents would."""
        for number in range(count):
            name = f"n{number}"
            self.store.run_blocking(CreateNode(f"nod_{number}", name, "hanoi", f"r{number // 20}", self.now_ms))
            reported = [ReportedDevice(f"GPU-{number}-{index}", index, MODEL, 141 << 30, 8, True) for index in range(devices)]
            self.store.run_blocking(AcceptInventory(name, "boot", "0", 128_000, 1 << 40, "namespaces", reported, self.now_ms))

    def submissions(self, jobs: int, *, together: int) -> Iterator[SubmitJobs]:
        """Yield commands that submit `jobs` one-GPU jobs, spread over the tenants."""
        shape = Shape((MODEL,), 1, 1)
        while jobs > 0:
            submitter = self.tenants[(self.submitted // together) % len(self.tenants)]
            count = min(together, jobs)
            yield SubmitJobs(submitter, self._new_jobs(submitter, shape, count), self.now_ms)
            self.submitted += count
            jobs -= count

    def submit(self, jobs: int) -> None:
        """Queue `jobs` one-GPU jobs, as many for each tenant."""
        for command in self.submissions(jobs, together=-(-jobs // len(self.tenants))):
            self.store.run_blocking(command)

    def _new_jobs(self, submitter: Submitter, shape: Shape, count: int) -> Sequence[NewJob]:
        project = submitter.tenant_id.replace("ten_", "prj_")
        key = class_key(submitter.tenant_id, project, shape, limit_ms=HOUR_MS, priority=0)
        return [
            NewJob(
                id=f"job_{self.submitted + position}",
                job_class=key,
                shape=shape,
                name=None,
                project="default",
                tier="standard",
                entrypoint=("python", "train.py"),
                environment={},
                archive_sha256=None,
                requirements=None,
                maximum_attempts=3,
            )
            for position in range(count)
        ]
