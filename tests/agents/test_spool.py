"""The spool's promises: durable when it says so, in order, bounded, all or nothing, and honest when it is damaged."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.spool import DROPPED_NOTE, LeaseMemory, Spool, SpoolBusyError, SpoolError
from tests.agents.obstacles import full

NOW = 1_800_000_000_000


def opened(folder: Path, boot_id: str = "boot-one", *, bytes_maximum: int = 1_000_000) -> Spool:
    return Spool(folder / "spool.db", boot_id=boot_id, bytes_maximum=bytes_maximum)


def kept(spool: Spool, **limits: int) -> list[tuple[str, str | None, Any]]:
    """Return what waits, as (kind, lease, data)."""
    reports = spool.oldest(**{"reports_maximum": 100, "bytes_maximum": 1_000_000, **limits})
    return [(report.kind, report.lease_id, dict(report.data)) for report in reports]


def add(spool: Spool, *kinds: str, lease_id: str = "lea_a", **data: Any) -> None:
    for kind in kinds:
        spool.add(kind, lease_id, data, observed_at_ms=NOW)


def test_what_was_added_is_there_after_a_crash_in_order(tmp_path: Path) -> None:
    add(opened(tmp_path), "started", "exited")  # never closed

    assert kept(opened(tmp_path, "boot-two")) == [("started", "lea_a", {}), ("exited", "lea_a", {})]


def test_reports_of_two_boots_are_never_in_one_batch_and_the_older_go_first(tmp_path: Path) -> None:
    add(opened(tmp_path), "started")
    second = opened(tmp_path, "boot-two")
    add(second, "lost")

    batches = []
    while reports := second.oldest(reports_maximum=10, bytes_maximum=10_000):
        batches.append([(report.boot_id, report.kind) for report in reports])
        second.forget_through(reports[-1].seq, boot_id=reports[0].boot_id)

    assert batches == [[("boot-one", "started")], [("boot-two", "lost")]]


def test_accepting_an_older_batch_again_takes_nothing_newer(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    add(spool, "started", "exited", "gone")
    [first, *_] = spool.oldest(reports_maximum=10, bytes_maximum=10_000)

    spool.forget_through(first.seq, boot_id="boot-one")
    spool.forget_through(first.seq, boot_id="boot-one")

    assert [kind for kind, _, _ in kept(spool)] == ["exited", "gone"]


def test_batch_is_bounded_in_reports_and_in_bytes_but_never_empty(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for _ in range(3):
        add(spool, "exited", message="x" * 1_000)

    sizes = [len(kept(spool, **limits)) for limits in ({"reports_maximum": 2}, {"bytes_maximum": 2_100}, {"bytes_maximum": 1})]

    assert sizes == [2, 2, 1]


def test_newest_progress_of_a_lease_replaces_the_one_that_waits(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for lease_id in ("lea_a", "lea_b"):
        for step in range(3):
            add(spool, "progress", lease_id=lease_id, step=step)

    assert kept(spool) == [("progress", "lea_a", {"step": 2}), ("progress", "lea_b", {"step": 2})]


def test_word_of_a_checkpoint_waits_until_a_newer_one_replaces_it(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for step, mark in ((1, {}), (2, {"checkpoint": True}), (3, {}), (4, {"metrics": {"note": '"checkpoint": true'}})):
        add(spool, "progress", step=step, **mark)
    between = [data["step"] for _, _, data in kept(spool)]
    add(spool, "progress", step=5, checkpoint=True)

    assert (between, [data["step"] for _, _, data in kept(spool)]) == ([2, 4], [5])


def test_output_beyond_the_limit_is_dropped_with_one_note_and_later_output_follows_without_a_hole(tmp_path: Path) -> None:
    spool = opened(tmp_path, bytes_maximum=200)
    offset = spool.add_output("lea_a", 0, "x" * 150, observed_at_ms=NOW)
    offset = spool.add_output("lea_a", offset, "y" * 150, observed_at_ms=NOW)
    offset = spool.add_output("lea_a", offset, "z" * 150, observed_at_ms=NOW)
    spool.forget_through(spool.oldest(reports_maximum=1, bytes_maximum=1)[0].seq, boot_id="boot-one")
    spool.add_output("lea_a", offset, "end", observed_at_ms=NOW)

    assert [(data["offset"], data["text"]) for _, _, data in kept(spool)] == [(150, DROPPED_NOTE), (150 + len(DROPPED_NOTE), "end")]


def test_offsets_count_bytes(tmp_path: Path) -> None:
    assert opened(tmp_path).add_output("lea_a", 10, "ü€𝄞", observed_at_ms=NOW) == 10 + 2 + 3 + 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["started", "progress", "log", "forget one", "forget through"]), max_size=30))
def test_counted_bytes_are_the_bytes_that_wait(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = opened(folder)
    for number, step in enumerate(steps):
        oldest = spool.oldest(reports_maximum=1, bytes_maximum=1)
        if step == "log":
            spool.add_output("lea_a", number, "x" * number, observed_at_ms=NOW)
        elif step == "forget one" and oldest:
            spool.forget(oldest[0].seq)
        elif step == "forget through" and oldest:
            spool.forget_through(oldest[0].seq, boot_id="boot-one")
        elif not step.startswith("forget"):
            add(spool, step, number="n" * number)

    assert spool.size_bytes == opened(folder, "boot-two").size_bytes
    spool.close()


def test_lease_is_remembered_as_taken_until_it_is_gone_and_by_whom(tmp_path: Path) -> None:
    opened(tmp_path).take("lea_a", ["GPU-1", "GPU-2"])
    spool = opened(tmp_path, "boot-two")
    spool.take("lea_b", [])

    before = (spool.memory_of("lea_a"), spool.memory_of("lea_b"), spool.memory_of("lea_c"), spool.taken_before())
    spool.report_gone("lea_a", observed_at_ms=NOW)

    taken, unknown = LeaseMemory.TAKEN, LeaseMemory.UNKNOWN
    assert before == ((taken, False), (taken, True), (unknown, False), {"lea_a": ("GPU-1", "GPU-2")})
    assert (spool.memory_of("lea_a")[0], spool.taken_before()) == (LeaseMemory.GONE, {})


def test_gone_lease_is_forgotten_only_when_nothing_of_it_waits_and_nobody_names_it(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for lease_id in ("lea_a", "lea_b", "lea_c"):
        spool.take(lease_id, [])
        if lease_id != "lea_c":
            spool.report_gone(lease_id, observed_at_ms=NOW)

    spool.forget_leases_but(set())
    waiting = [spool.memory_of(lease_id)[0] for lease_id in ("lea_a", "lea_b", "lea_c")]
    spool.forget_through(spool.oldest(reports_maximum=9, bytes_maximum=9_999)[-1].seq, boot_id="boot-one")
    spool.forget_leases_but({"lea_b"})

    gone, taken, unknown = LeaseMemory.GONE, LeaseMemory.TAKEN, LeaseMemory.UNKNOWN
    assert waiting == [gone, gone, taken]
    assert [spool.memory_of(lease_id)[0] for lease_id in ("lea_a", "lea_b", "lea_c")] == [unknown, gone, taken]


def end_too_long_for_the_disk(spool: Spool) -> None:
    with spool.together():
        spool.report_gone("lea_a", observed_at_ms=NOW)
        add(spool, "exited", message="x" * 50_000)


def test_full_disk_refuses_and_what_failed_left_no_trace(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.take("lea_a", [])
    add(spool, "started")
    with full(spool), pytest.raises(SpoolBusyError, match="database or disk is full"):
        end_too_long_for_the_disk(spool)
    size_bytes = spool.size_bytes

    add(spool, "exited")

    assert (spool.memory_of("lea_a")[0], size_bytes) == (LeaseMemory.TAKEN, len("{}"))
    assert [kind for kind, _, _ in kept(opened(tmp_path, "boot-two"))] == ["started", "exited"]


@pytest.mark.parametrize("damage", ["no database", "torn"])
def test_damaged_spool_is_set_aside_and_what_is_assigned_then_counts_as_taken(damage: str, tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for _ in range(50):
        add(spool, "exited", message="x" * 1_000)
    spool.close()
    content = (tmp_path / "spool.db").read_bytes()
    (tmp_path / "spool.db").write_bytes(b"no database" * 1_000 if damage == "no database" else content[:8_192] + b"\xff" * 32_768)

    spool = opened(tmp_path, "boot-two")
    was_lost = spool.has_lost_memory()
    spool.take_as_lost({"lea_a": ["GPU-1"]})

    assert (was_lost, spool.has_lost_memory(), spool.taken_before()) == (True, False, {"lea_a": ("GPU-1",)})
    assert (tmp_path / "spool.db.broken").exists()


def test_loss_of_memory_is_remembered_until_somebody_acted_on_it(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"no database" * 1_000)
    opened(tmp_path).close()

    assert opened(tmp_path, "boot-two").has_lost_memory()


def test_whole_spool_has_lost_nothing(tmp_path: Path) -> None:
    opened(tmp_path).close()

    assert not opened(tmp_path, "boot-two").has_lost_memory()


def test_spool_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=r"nowhere/spool\.db: unable to open database file"):
        opened(tmp_path / "nowhere")


def test_use_after_the_end_is_an_error_that_trying_again_does_not_mend(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.close()

    with pytest.raises(SpoolError) as error:
        add(spool, "started")

    assert not isinstance(error.value, SpoolBusyError)


def test_file_of_an_earlier_release_is_taken_over(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "spool.db")
    connection.execute(
        "CREATE TABLE leases (lease_id TEXT PRIMARY KEY, boot_id TEXT NOT NULL, device_uuids TEXT NOT NULL, is_gone INTEGER NOT NULL)"
    )
    connection.execute("INSERT INTO leases VALUES ('lea_a', 'boot-zero', '[]', 0)")
    connection.commit()
    connection.close()

    assert opened(tmp_path).taken_before() == {"lea_a": ()}
