"""Random worlds: jobs are submitted and cancelled, nodes drain, fall silent and come back, schedulers die, quotas change, clocks step.

Everything that must always be true is looked at after every step. In the end all nodes come back, and every job that was accepted is in
exactly one terminal state and holds nothing, and the usage lines add up to the leases. A failure prints how to reproduce it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from billing.calc import report
from billing.service import BillingSettings
from billing.service.loop import rate_once
from domain.intervals import Interval
from executors.fake import Script
from quotas.tree import PreemptWithin, Reclaim
from scheduler.decision.snapshot import Policy, Victims
from store import tables
from store.engine import Store
from store.identity import SetTenant
from store.policy import SetPolicy
from store.quota_rules import SetRules
from store.usage import UsageBetween
from tests.support.databases import PostgresServer
from tests.support.fleet import MINUTE_MS, Fleet

NODES = {"node-a": 4, "node-b": 2, "node-c": 1}
TENANTS = {"acme": 4, "zeta": 3}
JOBS_MAXIMUM = 15
STEPS_TO_THE_END_MAXIMUM = 400
some_node = st.sampled_from(sorted(NODES))
durations = st.sampled_from([0, 1, 1_000, 30_000, 5 * MINUTE_MS])
scripts = st.builds(
    Script,
    start_ms=st.sampled_from([0, 500, 20 * MINUTE_MS]),
    duration_ms=durations,
    exit_code=st.sampled_from([0, 0, 0, 1]),
    failure_class=st.sampled_from([None, None, None, "device", "out_of_memory"]),
    stop_ms=st.sampled_from([0, 700, 60_000]),
    stop_exit_code=st.sampled_from([143, 0]),
    idle_ms=st.sampled_from([0, 900]),
)


class RandomWorld(RuleBasedStateMachine):
    """One world. `open_store` makes a database of its own."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = open_store()
        self.world = Fleet(self.store)
        self.jobs: list[str] = []
        self.latest_ms = 0  # before the clock was put back

    def do(self, work: Any) -> Any:
        """Run a coroutine."""
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        """Make nodes and tenants."""
        self.do(self.world.begin(nodes=NODES, quota=TENANTS["acme"], cohort="fleet"))
        self.do(self.world.add_tenant("zeta", TENANTS["zeta"], cohort="fleet"))

    @precondition(lambda self: len(self.jobs) < JOBS_MAXIMUM)
    @rule(
        tenant=st.sampled_from(sorted(TENANTS)),
        size=st.sampled_from([(0, 1), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (4, 1)]),
        attempts=st.integers(1, 3),
        script=st.lists(scripts, min_size=1, max_size=3),
        priority=st.integers(0, 1),
        tier=st.sampled_from(["standard", "short"]),
    )
    def submit(self, tenant: str, size: tuple[int, int], script: list[Script], **terms: Any) -> None:
        """Accept a job that some node can hold."""
        gpus, replicas = size
        job = self.world.submit(tenant=tenant, gpus=gpus, replicas=replicas, script=script, cpu_milli=1_000, **terms)
        self.jobs.append(self.do(job))

    @rule(tenant=st.sampled_from(sorted(TENANTS)), reclaim=st.sampled_from(sorted(Reclaim)), within=st.sampled_from(sorted(PreemptWithin)))
    def change_rules(self, tenant: str, reclaim: Reclaim, within: PreemptWithin) -> None:
        """Say from whom a tenant may take."""
        rules = {"reclaim_within_cohort": reclaim.value, "within_tenant": within.value}
        self.do(self.store.run(SetRules(tenant, None, rules, Policy(), self.world.now_ms)))

    @rule(fair_sharing=st.booleans(), victims=st.sampled_from(sorted(Victims)), per_hour=st.sampled_from([None, 1]))
    def change_policy(self, fair_sharing: bool, victims: Victims, per_hour: int | None) -> None:
        """Choose as an operator may."""
        choices = {"fair_sharing": fair_sharing, "victims": victims.value, "preemptions_per_hour": per_hour}
        self.do(self.store.run(SetPolicy(self.world.settings.policy, choices, self.world.now_ms)))

    @rule(tenant=st.sampled_from(sorted(TENANTS)), is_suspended=st.booleans())
    def suspend(self, tenant: str, is_suspended: bool) -> None:
        """Switch a tenant."""
        self.do(self.store.run(SetTenant(tenant, None, is_suspended, self.world.now_ms)))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Ask for the end of a job in whatever state."""
        self.do(self.world.cancel(data.draw(st.sampled_from(self.jobs))))

    @rule(ms=st.sampled_from([1, 700, 5_000, 40_000, 15 * MINUTE_MS]))
    def pass_time(self, ms: int) -> None:
        """Let time pass."""
        self.do(self.world.pass_time(ms))

    @rule()
    def step(self) -> None:
        """Let the scheduler do a cycle."""
        self.do(self.world.step())

    @rule()
    def settle(self) -> None:
        """Let the scheduler do cycles until there is nothing to do."""
        self.do(self.world.settle())

    @rule(node=some_node, is_draining=st.booleans())
    def drain(self, node: str, is_draining: bool) -> None:
        """Switch a node."""
        self.do(self.world.drain(node, is_draining=is_draining))

    @rule(node=some_node)
    def silence(self, node: str) -> None:
        """Cut a node off."""
        self.world.silence(node)

    @rule(node=some_node)
    def reconnect(self, node: str) -> None:
        """Let a node be heard again."""
        self.world.reconnect(node)

    @rule(node=some_node)
    def restart(self, node: str) -> None:
        """Restart a node's agent, which loses its leases."""
        self.do(self.world.restart(node))

    @precondition(lambda self: self.world.now_ms >= self.latest_ms)  # a quota dated into the past would rewrite what was true then
    @rule(tenant=st.sampled_from(sorted(TENANTS)), gpus=st.integers(0, 6))
    def change_quota(self, tenant: str, gpus: int) -> None:
        """Raise or cut a tenant's quota, below what it holds too."""
        self.do(self.world.pass_time(1))
        self.do(self.world.set_quota(tenant, gpus))

    @rule()
    def replace_scheduler(self) -> None:
        """Kill the scheduler; another one takes over after the term."""
        self.world.loop = self.world.scheduler()
        self.do(self.world.pass_time(self.world.settings.term_ms))

    @rule(ms=st.sampled_from([1_000, 60_000, 60 * MINUTE_MS]))
    def put_clock_back(self, ms: int) -> None:
        """Step the clock."""
        self.latest_ms = max(self.latest_ms, self.world.now_ms)
        self.world.now_ms -= ms

    def teardown(self) -> None:
        """Bring everything back, wait, and look at how the jobs ended."""
        try:
            if self.jobs:
                self.do(self.finish())
        finally:
            self.store.close()
            self.runner.close()

    async def finish(self) -> None:
        """Let every job end."""
        world = self.world
        world.now_ms = max(world.now_ms, self.latest_ms) + MINUTE_MS
        for node in NODES:
            await world.restart(node)
            await world.drain(node, is_draining=False)
        for tenant in TENANTS:
            await world.set_quota(tenant, 6)
            await self.store.run(SetTenant(tenant, None, False, world.now_ms))
        await world.until(lambda: world.has_ended(*self.jobs), step_ms=5 * MINUTE_MS, steps=STEPS_TO_THE_END_MAXIMUM)
        assert {row["id"] for row in await world.rows(tables.Job)} == set(self.jobs)
        assert (world.fake.live, await world.rows(tables.DeviceClaim)) == ((), [])
        await rate_once(self.store, BillingSettings(), now_ms=world.now_ms)
        ever = Interval(0, world.now_ms + 1)
        data = await self.store.read(UsageBetween(ever, "USD"))
        assert (report.check(data.leases, data.prices, data.lines, ever).is_equal, data.unrated_leases) == (True, 0)
        await world.check()


def look_at(open_store: Callable[[], Store], *, examples: int) -> None:
    """Try random worlds."""
    bounds = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(lambda: RandomWorld(open_store), settings=bounds)  # type: ignore[arg-type]  # any factory will do


@pytest.mark.timeout(600)
def test_random_worlds_on_sqlite_keep_every_promise(sqlite_template: Path, tmp_path: Path) -> None:
    numbers = iter(range(1_000_000))

    def open_store() -> Store:
        path = tmp_path / f"world-{next(numbers)}.db"
        shutil.copy(sqlite_template, path)
        return Store.open(f"sqlite:///{path}")

    look_at(open_store, examples=30)


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_random_worlds_on_postgresql_keep_every_promise(postgres_server: PostgresServer) -> None:
    numbers = iter(range(1_000_000))

    def open_store() -> Store:
        return Store.open(postgres_server.create_database(f"random_{next(numbers)}", template="terrace_template"))

    look_at(open_store, examples=10)
