"""Amounts are typed and shown exactly: nothing is rounded, and what is shown can be typed again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.money import Currency, Money
from terrace import units
from terrace.sdk.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("2h", 7_200), ("1d", 86_400), ("1h30m", 5_400), ("1d2h3m4s", 93_784)],
)
def test_durations_are_read_in_seconds(text: str, seconds: int) -> None:
    assert units.duration_seconds("limit", text) == seconds


@pytest.mark.parametrize(
    ("text", "amount"),
    [("4GiB", 4 << 30), ("512MiB", 512 << 20), ("2GB", 2_000_000_000), ("1.5GiB", 3 << 29), ("7B", 7), ("1Ki", 1024), ("0", 0)],
)
def test_memory_is_read_in_bytes(text: str, amount: int) -> None:
    assert units.memory_bytes("memory", text) == amount


@pytest.mark.parametrize("text", ["", "5", "5 m", "-5m", "1.5h", "5x", "0s", "m", "9" * 20 + "s"])
def test_what_is_no_duration_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(InputError) as refused:
        units.duration_seconds("limit", text)
    assert refused.value.field == "limit"


@pytest.mark.parametrize("text", ["", "4", "4gib", "4 XiB", "-1GiB", "1.0000000001KiB", "GiB", "1e9B"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(InputError) as refused:
        units.memory_bytes("memory", text)
    assert refused.value.field == "memory"


@pytest.mark.parametrize("text", ["0.0005", "-1", "1e3", "half", "", "1.", "nan"])
def test_numbers_finer_than_a_thousandth_or_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        units.cpu_milli("cpus", text)


def test_the_scales_of_currencies_are_those_of_the_service() -> None:
    assert {currency.code: currency.scale_digits for currency in Currency} == units.CURRENCY_DIGITS


def test_an_unknown_currency_is_refused_by_name_and_shown_in_its_units() -> None:
    with pytest.raises(InputError) as refused:
        units.money_units("amount", "1", "XYZ")
    assert (refused.value.field, refused.value.limit) == ("currency", ["USD", "VND"])
    assert units.price(12, "XYZ") == "12 units XYZ"


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (units.gpus(2_000), "2"),
        (units.gpus(2_125), "2.125"),
        (units.cpus(500), "0.5"),
        (units.money(175_972, "USD"), "0.175972"),
        (units.money(-1, "VND"), "-0.001"),
        (units.price(3_500_000, "USD"), "3.50 USD"),
        (units.price(3_500_001, "USD"), "3.500001 USD"),
        (units.gpu_time(181_000_000), "0:03:01.000"),
        (units.gpu_time(1_500), "0:00:00.001500"),
        (units.gpu_time(36_000_000_000 * 10), "100:00:00.000"),
        (units.memory(3 << 29), "1536MiB"),
        (units.memory_about((23 << 30) + 5), "23 GiB"),
        (units.duration(5_400), "1h30m"),
        (units.duration_about(3_725), "1 h 2 min"),
        (units.duration_about(0), "0 s"),
        (units.duration_about(86_400), "1 d"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_amounts_are_shown_exactly(shown: str, words: str) -> None:
    assert shown == words


@given(st.integers(min_value=0, max_value=10**12))
def test_what_is_shown_can_be_typed_again(amount: int) -> None:
    assert units.memory_bytes("m", units.memory(amount)) == amount
    assert units.cpu_milli("c", units.cpus(amount)) == amount
    assert units.milli_gpu("g", units.gpus(amount)) == amount
    assert units.money_units("p", units.money(amount, "USD"), "USD") == amount
    if amount:
        assert units.duration_seconds("d", units.duration(amount % 10**8 or 1)) == (amount % 10**8 or 1)


@given(st.integers(min_value=-(10**15), max_value=10**15), st.sampled_from(list(Currency)))
def test_money_is_shown_as_the_service_writes_it(amount: int, currency: Currency) -> None:
    assert units.money(amount, currency.code) == Money(amount, currency).to_decimal_text()
