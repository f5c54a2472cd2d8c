"""Archives where commands run side by side: two uploads at once, and a submit while an archive is being forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from store.archives import ForgetArchives, RecordArchive, Room, Unused, UnusedArchives
from store.engine import Store
from store.errors import ConflictError, InvalidError
from tests.store.test_races import first_then
from tests.store.world import T0_MS, World

pytestmark = pytest.mark.postgres

ONE = Room(bytes_maximum=1_000, archives_maximum=1)
SHA, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def acme(postgres_url: str) -> Iterator[World]:
    """A tenant with an archive that no job needs."""
    store = Store.open(postgres_url)
    world = World(store)
    world.tenant("acme")
    world.run(RecordArchive("ten_acme", SHA, 10, T0_MS))
    yield world
    store.close()


def unused(world: World) -> Unused:
    found: Unused = world.read(UnusedArchives(T0_MS + 1))
    assert found.named == (("ten_acme", SHA),)
    return found


def test_two_uploads_at_once_are_counted_one_after_the_other(acme: World) -> None:
    acme.run(ForgetArchives(unused(acme)))

    first, second = first_then(acme, RecordArchive("ten_acme", SHA, 10, T0_MS, ONE), RecordArchive("ten_acme", OTHER, 10, T0_MS, ONE))

    assert first is None
    assert isinstance(second, ConflictError)


def test_archive_that_a_submit_on_its_way_names_is_kept(acme: World) -> None:
    found = unused(acme)

    accepted, forgotten = first_then(acme, acme.submission(archive_sha256=SHA), ForgetArchives(found))

    assert len(accepted) == 1
    assert forgotten == []


def test_submit_that_comes_while_its_archive_is_forgotten_is_refused(acme: World) -> None:
    forgotten, refused = first_then(acme, ForgetArchives(unused(acme)), acme.submission(archive_sha256=SHA))

    assert forgotten == [("ten_acme", SHA)]
    assert isinstance(refused, InvalidError)
    assert refused.code == "archive_not_uploaded"
