"""Reading events with a cursor: in order, narrowed, and on PostgreSQL never past one that may still appear."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store.engine import Store
from store.events import EventsAfter, NewestEvent
from tests.store.world import T0_MS, World
from tests.support.gates import Gate, Gated
from tests.support.statements import Statement, change
from tests.support.waiting import wait_until

WRITERS = 8
EACH = 40
WORK_MAXIMUM = 40_000


def tell(kind: str) -> Statement:
    return Statement("INSERT INTO event (at_ms, kind, data) VALUES (0, :kind, '{}')", {"kind": kind})


def kinds(store: Store, after: int = 0, limit: int = 1_000, **fields: Any) -> list[str]:
    return [event.kind for event in store.read_blocking(EventsAfter(after, limit, **fields))]


def test_events_tell_what_happened_with_names(world: World) -> None:
    world.tenant("acme")
    world.node("a")
    job = world.job()
    lease = world.lease(job, on=[("a", 0)])
    submitted, leased = [event for event in world.read(EventsAfter(0, 10)) if event.job_id is not None]
    assert (submitted.kind, submitted.tenant, submitted.job_id, submitted.lease_id, submitted.at_ms) == (
        "job_submitted",
        "acme",
        job,
        None,
        T0_MS,
    )
    assert (leased.kind, leased.lease_id, leased.data) == ("job_leased", lease, {"attempt": 1, "slices": 1})


def test_cursor_goes_on_where_it_was(store: Store) -> None:
    for number in range(5):
        store.run_blocking(tell(f"{number}"))
    first = store.read_blocking(EventsAfter(0, 2))
    assert [event.kind for event in first] == ["0", "1"]
    assert kinds(store, first[-1].id) == ["2", "3", "4"]
    assert store.read_blocking(NewestEvent()) == first[-1].id + 3


def test_events_of_one_tenant_or_job(world: World) -> None:
    world.tenant("acme")
    world.tenant("other")
    mine = [world.job() for _ in range(2)]
    world.job(tenant="other")
    changes = ["tenant_changed", "tenant_changed", "quota_changed"]
    assert kinds(world.store, tenant_id="ten_acme") == [*changes, "job_submitted", "job_submitted"]
    assert [event.job_id for event in world.read(EventsAfter(0, 9, tenant_id="ten_acme"))] == [None, None, None, *mine]
    assert [event.job_id for event in world.read(EventsAfter(0, 9, job_id=mine[1]))] == [mine[1]]
    assert world.read(EventsAfter(0, 9, tenant_id="ten_other", job_id=mine[1])) == ()
    assert world.read(NewestEvent(mine[0])) == world.read(EventsAfter(0, 9, job_id=mine[0]))[0].id


def test_no_events_is_the_beginning(store: Store) -> None:
    assert (kinds(store), store.read_blocking(NewestEvent()), store.read_blocking(NewestEvent("job_none"))) == ([], 0, 0)


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Store]:
    opened = Store.open(postgres_url)
    yield opened
    opened.close()


@pytest.mark.postgres
@pytest.mark.parametrize("fate", ["commit", "rollback"])
def test_event_is_held_back_while_an_earlier_one_may_appear(postgres: Store, fate: str) -> None:
    gate = Gate()
    postgres.run_blocking(tell("before"))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(postgres.run_blocking, Gated(tell("slow"), gate) if fate == "commit" else Fails(gate))
        gate.wait()
        postgres.run_blocking(tell("quick"))
        assert kinds(postgres) == ["before"]
        newest = postgres.read_blocking(NewestEvent())
        gate.open()
        assert (slow.exception() is None) == (fate == "commit")
    assert kinds(postgres) == (["before", "slow", "quick"] if fate == "commit" else ["before", "quick"])
    assert kinds(postgres, newest) == (["slow", "quick"] if fate == "commit" else ["quick"])


class Fails:
    """Tells something, waits at a gate and takes it back."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def execute(self, connection: Any, /) -> None:
        Gated(tell("slow"), self.gate).execute(connection)
        raise ZeroDivisionError


@pytest.mark.postgres
def test_reader_is_woken_when_what_held_an_event_back_has_failed(postgres: Store) -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(postgres.run_blocking, Fails(gate))
        gate.wait()
        postgres.run_blocking(tell("quick"))
        wait_until(lambda: postgres.change_mark() >= 2, seconds=10)  # it listens, and has heard of `quick`
        mark = postgres.change_mark()
        assert kinds(postgres) == []
        gate.open()
        assert isinstance(slow.exception(), ZeroDivisionError)
    wait_until(lambda: postgres.change_mark() != mark, seconds=10)
    assert kinds(postgres) == ["quick"]


@pytest.mark.postgres
def test_transaction_that_writes_no_event_and_reads_for_long_holds_nothing_back(postgres: Store) -> None:
    gate = Gate()

    class Reads:
        def fetch(self, connection: Any, /) -> None:
            connection.exec_driver_sql("SELECT 1")
            gate.stand()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(postgres.read_blocking, Reads())
        gate.wait()
        postgres.run_blocking(tell("quick"))
        assert kinds(postgres) == ["quick"]
        gate.open()


@pytest.mark.postgres
def test_reader_beside_many_writers_misses_nothing_and_sees_nothing_twice(postgres: Store) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    done = threading.Event()
    seen: list[str] = []

    def follow() -> None:
        after, is_last = 0, False
        while True:
            is_last = done.is_set()
            found = postgres.read_blocking(EventsAfter(after, 7))
            seen.extend(event.kind for event in found)
            after = found[-1].id if found else after
            if is_last and not found:
                return

    def write(writer: int) -> None:
        chance = random.Random(seed + writer)
        for number in range(EACH):
            postgres.run_blocking(Lingers(tell(f"{writer}-{number}"), chance.randrange(WORK_MAXIMUM)))

    reader = threading.Thread(target=follow)
    reader.start()
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    done.set()
    reader.join()
    assert sorted(seen) == sorted(f"{writer}-{number}" for writer in range(WRITERS) for number in range(EACH))
    assert change(postgres, "DELETE FROM event") == len(seen)


class Lingers:
    """Does a command and gives the server something to count before the commit."""

    def __init__(self, inner: Statement, work: int) -> None:
        self.inner, self.work = inner, work

    def execute(self, connection: Any, /) -> None:
        self.inner.execute(connection)
        Statement("SELECT count(*) FROM generate_series(1, :work)", {"work": self.work}).execute(connection)
