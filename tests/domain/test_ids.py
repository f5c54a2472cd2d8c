"""Identifiers and names: their form, their order, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import ids

TIMES = st.integers(min_value=0, max_value=(1 << 50) - 1)
ENTROPY = st.binary(min_size=ids.ENTROPY_BYTES, max_size=ids.ENTROPY_BYTES)


def test_identifier_is_its_kind_and_twenty_characters() -> None:
    assert ids.make("job", now_ms=0, entropy=bytes(7)) == "job_00000000000000000000"
    assert ids.make("lea", now_ms=1_700_000_000_000, entropy=b"\x00\x00\x00\x00\x00\x00\x21") == "lea_01hf7yat000000000011"


@given(TIMES, ENTROPY)
def test_what_is_made_is_recognised(now_ms: int, entropy: bytes) -> None:
    assert ids.is_identifier(ids.make("job", now_ms=now_ms, entropy=entropy))


@given(TIMES, TIMES, ENTROPY, ENTROPY)
def test_identifiers_of_a_kind_sort_by_age(one_ms: int, other_ms: int, one: bytes, other: bytes) -> None:
    first, second = (ids.make("job", now_ms=now_ms, entropy=entropy) for now_ms, entropy in ((one_ms, one), (other_ms, other)))
    if one_ms != other_ms:
        assert (first < second) == (one_ms < other_ms)


@given(st.lists(st.binary(min_size=6, max_size=6), unique=True, min_size=2, max_size=20))
def test_other_entropy_gives_another_identifier(values: list[bytes]) -> None:
    made = {ids.make("job", now_ms=1, entropy=b"\x00" + value) for value in values}
    assert len(made) == len(values)


def test_too_little_entropy_is_refused() -> None:
    with pytest.raises(ValueError, match="entropy: needs 7 bytes, got 6"):
        ids.make("job", now_ms=0, entropy=bytes(6))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job",
        "job_",
        "job_" + "0" * 19,
        "job_" + "0" * 21,
        "JOB_" + "0" * 20,
        "job_" + "0" * 19 + "i",
        "j_" + "0" * 20,
        " job_" + "0" * 20,
        "job_" + "0" * 20 + "\n",
    ],
)
def test_text_that_is_no_identifier(text: str) -> None:
    assert not ids.is_identifier(text)


@pytest.mark.parametrize("name", ["a", "0", "gpu-1", "a" * 63, "a--b"])
def test_name_that_may_be_given(name: str) -> None:
    assert ids.is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "a b", "a" * 64, "é", "a\n"])
def test_name_that_may_not(name: str) -> None:
    assert not ids.is_name(name)
