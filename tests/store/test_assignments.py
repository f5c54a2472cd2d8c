"""What an agent pulls, what an executor hands in, and who may read an archive."""

from __future__ import annotations

import pytest

from store.archives import ArchiveSize, RecordArchive
from store.assignments import AssignedSliceView, AssignmentsOfNode, AssignmentView, HasLeaseOf
from store.errors import NotFoundError
from store.executions import Progress, ProgressOfLeases, RecordHandles
from tests.store.world import HOUR_MS, T0_MS, World
from tests.support.statements import change

SHA = "a" * 64


@pytest.fixture
def acme(world: World) -> World:
    """A tenant with an uploaded archive, two nodes, and `lea_a` on node `a`."""
    world.tenant("acme")
    world.node("a")
    world.node("b")
    world.run(RecordArchive("ten_acme", SHA, 10, T0_MS))
    job = world.job(gpus=2, archive_sha256=SHA, requirements="numpy==2.0")
    assert job == "job_000002"
    world.bind(world.start(job, on=[("a", 1), ("a", 2)], lease="lea_a"))
    return world


def test_agent_gets_everything_that_it_needs_for_its_part(acme: World) -> None:
    slices = (AssignedSliceView("GPU-a-1", 1, 1_000), AssignedSliceView("GPU-a-2", 2, 1_000))
    assert acme.read(AssignmentsOfNode("a")) == (
        AssignmentView(
            "lea_a", "job_000002", 1, "ten_acme", "head", "run", None, slices, 0, 0, 1, 2, ["python", "train.py"], {"SEED": "1"}, SHA,
            "numpy==2.0", "token", HOUR_MS, 10_000,
        ),
    )  # fmt: skip
    assert acme.read(AssignmentsOfNode("b")) == ()


def test_assignment_stays_until_the_node_is_proven_clean(acme: World) -> None:
    change(acme.store, "UPDATE lease SET target = 'stop', stop_cause = 'cancelled', ended_at_ms = granted_at_ms")
    (item,) = acme.read(AssignmentsOfNode("a"))
    assert (item.target, item.stop_cause) == ("stop", "cancelled")
    change(acme.store, f"UPDATE lease_node SET is_gone = {'1' if acme.store.is_sqlite else 'true'}")  # noqa: S608  no name from outside
    assert acme.read(AssignmentsOfNode("a")) == ()


def test_node_that_nobody_made_has_no_assignments(acme: World) -> None:
    with pytest.raises(NotFoundError):
        acme.read(AssignmentsOfNode("x"))


def test_archive_is_read_by_nodes_with_an_open_lease_that_uses_it(acme: World) -> None:
    asked = [HasLeaseOf("a", "ten_acme", SHA), HasLeaseOf("b", "ten_acme", SHA), HasLeaseOf("a", "ten_other", SHA)]
    assert [acme.read(question) for question in (*asked, HasLeaseOf("a", "ten_acme", "b" * 64))] == [True, False, False, False]
    acme.run_to_the_end("lea_a")
    assert acme.read(asked[0]) is False


def test_archive_is_private_and_recording_it_again_changes_nothing(acme: World) -> None:
    acme.tenant("other")
    acme.run(RecordArchive("ten_acme", SHA, 999, T0_MS + 1))
    assert [acme.read(ArchiveSize(tenant, SHA)) for tenant in ("ten_acme", "ten_other")] == [10, None]


def test_handle_is_kept_while_the_lease_is_open(acme: World) -> None:
    acme.run(RecordHandles(acme.fence, {"lea_a": '{"pid":1}', "lea_none": "{}"}, T0_MS))
    assert acme.open_lease("lea_a").handle == '{"pid":1}'


def test_progress_of_a_lease_follows_its_rows(acme: World) -> None:
    assert acme.read(ProgressOfLeases(["lea_a", "lea_none"])) == {"lea_a": Progress("run", None, None, None, is_out_of_sight=False)}
    change(acme.store, f"UPDATE node SET is_lost = {'1' if acme.store.is_sqlite else 'true'} WHERE name = 'a'")  # noqa: S608
    assert acme.read(ProgressOfLeases(["lea_a"]))["lea_a"].is_out_of_sight
    acme.run_to_the_end("lea_a")
    done = acme.read(ProgressOfLeases(["lea_a"]))["lea_a"]
    assert (done.running_at_ms, done.ended_at_ms, done.released_at_ms, done.is_out_of_sight) == (
        T0_MS + 1_000,
        T0_MS + 61_000,
        T0_MS + 62_000,
        False,
    )
