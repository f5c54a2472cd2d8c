from __future__ import annotations

import pytest

from tests.tidy import code_rules
from tests.tidy.sources import Rule, Source, complaints, python_sources

LONG_BODY = "    pass\n" * code_rules.FUNCTION_LINES_MAX

REFUSED = [
    pytest.param(code_rules.functions_fit_on_a_screen, "api/a.py", f"def long():\n{LONG_BODY}", id="a function of 71 lines"),
    pytest.param(code_rules.modules_fit_in_the_head, "api/a.py", "\n" * 501, id="a module of 501 lines"),
    pytest.param(code_rules.modules_fit_in_the_head, "tests/test_a.py", "\n" * 301, id="a test module of 301 lines"),
    pytest.param(code_rules.modules_say_what_they_own, "api/a.py", '"""Short."""' + "\n" * 41, id="a module with one line of docstring"),
    pytest.param(code_rules.modules_say_what_they_own, "api/__init__.py", "A = 1", id="a package without a docstring"),
    pytest.param(code_rules.only_edges_read_the_clock, "store/a.py", "now = time.time()", id="time.time in the store"),
    pytest.param(code_rules.only_edges_read_the_clock, "store/a.py", "field(factory=datetime.datetime.utcnow)", id="utcnow passed on"),
    pytest.param(code_rules.only_edges_read_the_clock, "domain/a.py", "from time import time_ns", id="the clock imported by name"),
    pytest.param(code_rules.only_edges_read_the_clock, "tests/test_a.py", "datetime.now(UTC)", id="a test that reads the clock"),
    pytest.param(code_rules.money_is_counted_in_integers, "billing/calc/a.py", "rate = 0.5", id="a float literal in billing"),
    pytest.param(code_rules.money_is_counted_in_integers, "domain/money.py", "a = b / c", id="a true division in money"),
    pytest.param(code_rules.money_is_counted_in_integers, "domain/money.py", "a /= c", id="a true division in place"),
    pytest.param(code_rules.money_is_counted_in_integers, "billing/calc/a.py", "a = float(b)", id="a conversion to float"),
    pytest.param(code_rules.modules_have_telling_names, "api/utils.py", "", id="a module called utils"),
    pytest.param(code_rules.modules_have_telling_names, "api/utils/text.py", "", id="a folder called utils"),
    pytest.param(code_rules.first_party_imports_stand_on_top, "api/a.py", "def f():\n    from store import jobs", id="a late import"),
    pytest.param(code_rules.tests_do_not_sleep, "tests/test_a.py", "time.sleep(1)", id="a test that sleeps"),
    pytest.param(code_rules.tests_do_not_sleep, "tests/test_a.py", "from time import sleep", id="a test that imports sleep"),
    pytest.param(code_rules.tests_can_fail, "tests/test_a.py", "@pytest.mark.xfail\ndef test_a(): ...", id="an expected failure"),
    pytest.param(code_rules.tests_can_fail, "tests/test_a.py", "@pytest.mark.skip('x')\ndef test_a(): ...", id="a skip by mark"),
    pytest.param(code_rules.tests_can_fail, "tests/test_a.py", "def test_a():\n    pytest.skip('x')", id="a skip in the body"),
    pytest.param(code_rules.tests_can_fail, "tests/test_a.py", "mark = pytest.mark.skipif(True, reason='x')", id="a skip if true"),
    pytest.param(code_rules.tests_use_fakes_not_mocks, "tests/test_a.py", "from unittest import mock", id="a mock"),
]

ALLOWED = [
    pytest.param(code_rules.functions_fit_on_a_screen, "api/a.py", f"def fits():\n{LONG_BODY[9:]}", id="a function of 70 lines"),
    pytest.param(code_rules.modules_say_what_they_own, "api/a.py", '"""Short."""\n', id="a small module with one line of docstring"),
    pytest.param(code_rules.only_edges_read_the_clock, "terraced/clock.py", "now = time.time_ns()", id="the clock module of an edge"),
    pytest.param(code_rules.only_edges_read_the_clock, "store/a.py", "start = time.monotonic()", id="a duration"),
    pytest.param(code_rules.money_is_counted_in_integers, "api/a.py", "a = b / c", id="a division outside billing"),
    pytest.param(code_rules.first_party_imports_stand_on_top, "api/a.py", "def f():\n    import yaml", id="a late third-party import"),
    pytest.param(code_rules.tests_can_fail, "tests/test_a.py", "if x:\n    pytest.skip('x')", id="a skip for a reason"),
    pytest.param(code_rules.tests_can_fail, "tests/test_a.py", "mark = pytest.mark.skipif(x, reason='x')", id="a conditional mark"),
]


@pytest.mark.parametrize("rule", code_rules.RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    broken = complaints(rule, python_sources())

    assert not broken, f"\n{broken}"


@pytest.mark.parametrize(("rule", "path", "text"), REFUSED)
def test_rule_refuses(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_rule_allows(rule: Rule, path: str, text: str) -> None:
    assert not list(rule(Source(path, text)))


def test_every_rule_has_a_sample_that_it_refuses() -> None:
    sampled = {sample.values[0] for sample in REFUSED}

    assert sampled == set(code_rules.RULES)


def test_ratchet_holds_only_what_is_still_too_long() -> None:
    modules = {source.path: source.text.count("\n") for source in python_sources()}
    functions = {f"{source.path}:{name}": length for source in python_sources() for _, name, length in code_rules.function_lengths(source)}
    recorded = {**code_rules.LONG_MODULES, **code_rules.LONG_FUNCTIONS}

    shorter_by_now = [name for name, length in recorded.items() if {**modules, **functions}.get(name, 0) < length]

    assert not shorter_by_now, f"lower or remove these entries of the ratchet: {shorter_by_now}"
