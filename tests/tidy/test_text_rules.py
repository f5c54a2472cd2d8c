from __future__ import annotations

import re

import pytest

from tests.tidy import text_rules
from tests.tidy.sources import ROOT, Rule, Source, all_sources, complaints

REFUSED = [
    pytest.param(text_rules.no_registry_is_named, "a.yaml", "image: quay" + ".io/terrace", id="an image with a registry"),
    pytest.param(text_rules.no_registry_is_named, "a.md", "see https://files.pythonhosted" + ".org/x", id="a package address"),
    pytest.param(text_rules.no_machine_is_named, "a.md", "cd /wo" + "rk/main", id="a checkout's path"),
    pytest.param(text_rules.no_machine_is_named, "a.md", "in '/ho" + "me/ann'", id="a home folder"),
    pytest.param(text_rules.locks_carry_no_address, "requirements/dev.txt", "--index-url https:" + "//x", id="a lock with an address"),
    pytest.param(text_rules.nothing_is_left_for_later, "a.py", "# TO" + "DO: write", id="a promise in a comment"),
    pytest.param(text_rules.nothing_is_left_for_later, "a.py", "raise Not" + "ImplementedError", id="a stub"),
    pytest.param(text_rules.make_targets_are_documented, "Makefile", "demo: install\n\techo", id="a target without help"),
]

ALLOWED = [
    pytest.param(text_rules.no_registry_is_named, "a.yaml", "repository: terrace/service", id="an image without a registry"),
    pytest.param(text_rules.no_machine_is_named, "a.py", "GET /v1/root/x", id="a path of the API"),
    pytest.param(text_rules.locks_carry_no_address, "docs/a.md", "https:" + "//x", id="an address in a document"),
    pytest.param(text_rules.make_targets_are_documented, "Makefile", "demo: install ## Runs it\nX := 1\n.v/ok: a", id="help behind it"),
]


@pytest.mark.parametrize("rule", text_rules.RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    broken = complaints(rule, all_sources())

    assert not broken, f"\n{broken}"


@pytest.mark.parametrize(("rule", "path", "text"), REFUSED)
def test_rule_refuses(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_rule_allows(rule: Rule, path: str, text: str) -> None:
    assert not list(rule(Source(path, text)))


def test_every_rule_has_a_sample_that_it_refuses() -> None:
    assert {sample.values[0] for sample in REFUSED} == set(text_rules.RULES)


def test_every_lock_is_looked_at() -> None:
    looked_at = {source.path for source in all_sources() if re.fullmatch(r"requirements/\w+\.txt", source.path)}

    assert looked_at >= {"requirements/dev.txt", "requirements/job.txt", "requirements/service.txt"}


def test_changelog_has_a_section_for_the_next_release() -> None:
    """Operators read the changelog before they upgrade, so a change is written down when it is made."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.search(r"^## \[?Unreleased\]?", changelog, re.MULTILINE)
