"""Slices, modes, shapes and reasons: closed sets of words, and sums that follow from them."""

from __future__ import annotations

from enum import StrEnum

import pytest

from domain.jobs import Shape
from domain.reasons import Reason, ReasonCode, Unblock
from domain.slices import MILLI_GPU_PER_DEVICE, DeviceHealth, DeviceMode, Flavor, Slice


@pytest.mark.parametrize(
    ("shape", "slices", "milli_gpu"),
    [
        pytest.param(Shape(("h200",), 1, 1), 1, 1_000, id="one device"),
        pytest.param(Shape(("h200",), 4, 8), 32, 32_000, id="a gang"),
        pytest.param(Shape(("h200.1g.18gb",), 2, 3, 125), 6, 750, id="slices of a cut device"),
        pytest.param(Shape((), 5, 0), 0, 0, id="no GPU"),
    ],
)
def test_shape_says_what_the_whole_gang_holds(shape: Shape, slices: int, milli_gpu: int) -> None:
    assert (shape.slices, shape.milli_gpu) == (slices, milli_gpu)


def test_equal_shapes_are_one_key_and_order_of_preference_matters() -> None:
    assert {Shape(("a", "b"), 1, 1): 1}[Shape(("a", "b"), 1, 1)] == 1
    assert Shape(("a", "b"), 1, 1) != Shape(("b", "a"), 1, 1)


def test_whole_device_is_a_thousand() -> None:
    assert MILLI_GPU_PER_DEVICE == 1_000
    assert Flavor("h200", "h200", DeviceMode("whole"), MILLI_GPU_PER_DEVICE).mode is DeviceMode.WHOLE


WORDS = {
    DeviceMode: "whole mig shared",
    DeviceHealth: "healthy faulty quarantined unknown",
    ReasonCode: (
        "invalid not_permitted exceeds_maximum budget_exhausted quota_exceeded borrowing_limit user_cap dependency capacity_reserved"
        " no_capacity fragmented topology would_delay waiting_for_preempted held not_yet_considered"
    ),
    Unblock: (
        "change_the_job more_quota own_job_ends any_job_ends node_returns more_budget reservation_ends dependency_ends person_releases"
        " next_cycle"
    ),
}


@pytest.mark.parametrize(("kind", "words"), [pytest.param(kind, words.split(), id=kind.__name__) for kind, words in WORDS.items()])
def test_words_are_a_closed_set(kind: type[StrEnum], words: list[str]) -> None:
    assert [item.value for item in kind] == words
    with pytest.raises(ValueError, match="is not a valid"):
        kind("something else")


def test_slice_of_a_whole_device_has_no_cell() -> None:
    piece = Slice(0, "gpu-1", 3, 1_000)
    assert (piece.profile, piece.start_cell) == (None, None)


def test_reason_without_numbers_waits_for_the_next_cycle() -> None:
    assert Reason(ReasonCode.NOT_YET_CONSIDERED) == Reason(ReasonCode.NOT_YET_CONSIDERED, {}, Unblock.NEXT_CYCLE)
    assert Reason(ReasonCode.FRAGMENTED, {"needs": 8, "largest": 4}) != Reason(ReasonCode.FRAGMENTED, {"needs": 8, "largest": 3})
