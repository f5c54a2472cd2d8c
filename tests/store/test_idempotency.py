"""A request that is sent twice is done once and gets the first answer; two at once are one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store.errors import ConflictError, NotFoundError, StaleError
from store.idempotency import RETENTION_MS, Answered, OnceOnly, PruneRecords, Rendered
from tests.store.world import T0_MS, World
from tests.support.gates import Gate, Gated
from tests.support.statements import rows


@pytest.fixture
def acme(world: World) -> World:
    world.tenant("acme")
    return world


def once(
    world: World, command: Any = None, *, key: str | None = "key", body: str = "one", user: str = "usr_acme", **fields: Any
) -> OnceOnly[Any]:
    given: dict[str, Any] = {
        "render": lambda views: Rendered(201, f'["{views[0].id}"]'),
        "route": "POST /v1/jobs",
        "now_ms": T0_MS,
    } | fields
    return OnceOnly(command or world.submission(), user_id=user, key=key, body_sha256=body, **given)


def count(world: World) -> int:
    ((found,),) = rows(world.store, "SELECT count(*) FROM job")
    return int(found)


def test_repetition_gets_the_first_answer_and_changes_nothing(acme: World) -> None:
    first, second = acme.run(once(acme)), acme.run(once(acme))
    assert first == Answered(201, '["job_000002"]')
    assert second == Answered(201, '["job_000002"]', is_replayed=True)
    assert count(acme) == 1


def test_requests_without_a_key_are_all_done(acme: World) -> None:
    assert [acme.run(once(acme, key=None)).is_replayed for _ in range(2)] == [False, False]
    assert count(acme) == 2


@pytest.mark.parametrize("other", [{"body": "other"}, {"route": "POST /v1/tenants"}], ids=["body", "route"])
def test_key_with_another_request_is_a_conflict(acme: World, other: dict[str, Any]) -> None:
    acme.run(once(acme))
    with pytest.raises(ConflictError) as refused:
        acme.run(once(acme, **other))
    assert (refused.value.code, refused.value.data["field"]) == ("idempotency_key_reused", "Idempotency-Key")
    assert count(acme) == 1


def test_keys_of_two_users_have_nothing_to_do_with_one_another(acme: World) -> None:
    acme.tenant("other")
    assert [acme.run(once(acme, user=user)).is_replayed for user in ("usr_acme", "usr_other")] == [False, False]


def test_request_that_was_refused_may_be_sent_again(acme: World) -> None:
    refused = acme.submission(archive_sha256="a" * 64)
    with pytest.raises(Exception, match="was not uploaded"):
        acme.run(once(acme, refused))
    assert acme.run(once(acme)).is_replayed is False


def test_secret_is_kept_out_of_the_record(acme: World) -> None:
    shown_once = Rendered(201, "secret", repeated=(409, "shown once"))
    answers = [acme.run(once(acme, render=lambda _: shown_once)) for _ in range(2)]
    assert answers == [Answered(201, "secret"), Answered(409, "shown once", is_replayed=True)]
    assert rows(acme.store, "SELECT response FROM idempotency_record") == [("shown once",)]


def test_two_at_once_are_one(acme: World) -> None:
    acme.job()  # so that neither waits for the other's new class
    gates = [Gate(), Gate()]
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(acme.run, once(acme, Gated(acme.submission(), gate))) for gate in gates]
        if not acme.store.is_sqlite:  # there, the second one cannot even begin
            for gate in gates:
                gate.wait()
        for gate in gates:
            gate.open()
        outcomes = [answer.exception() or answer.result() for answer in answers]
    assert count(acme) == 2
    done = [item for item in outcomes if isinstance(item, Answered) and not item.is_replayed]
    late = [item for item in outcomes if isinstance(item, StaleError) or (isinstance(item, Answered) and item.is_replayed)]
    assert (len(done), len(late)) == (1, 1)  # on PostgreSQL the later one is told to try again, and then gets the answer
    assert acme.run(once(acme)) == Answered(201, done[0].body, is_replayed=True)


def test_old_answers_are_forgotten_and_new_ones_kept(acme: World) -> None:
    acme.run(once(acme, key="old"))
    acme.run(once(acme, key="new", now_ms=T0_MS + 1))
    assert acme.run(PruneRecords(T0_MS + RETENTION_MS + 1)) == 1
    assert acme.run(PruneRecords(T0_MS + RETENTION_MS + 1)) == 0
    assert rows(acme.store, "SELECT key FROM idempotency_record") == [("new",)]


def test_refusal_of_the_command_is_the_callers(acme: World) -> None:
    class Missing:
        def execute(self, _: object, /) -> None:
            raise NotFoundError("job_not_found", "no")

    with pytest.raises(NotFoundError):
        acme.run(once(acme, Missing()))
    assert rows(acme.store, "SELECT key FROM idempotency_record") == []
