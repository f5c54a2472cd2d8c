"""House rules about every text file. Each docstring tells the reason for the rule and how to comply with it.

A rule is a function from one file to what it finds there, as in `code_rules.py`. The words that it looks for are put
together from parts, so that this file does not contain them itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.tidy.sources import Finding, Rule, Source

_HOSTS = (
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("anaconda", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("yarnpkg", "com"),
    ("crates", "io"),
    ("proxy", "golang", "org"),
    ("sum", "golang", "org"),
    ("docker", "io"),
    ("docker", "com"),
    ("ghcr", "io"),
    ("quay", "io"),
    ("gcr", "io"),
    ("nvcr", "io"),
    ("mcr", "microsoft", "com"),
    ("registry", "k8s", "io"),
    ("deb", "debian", "org"),
)
_REGISTRY_HOST = re.compile("|".join(r"\b" + r"\.".join(host) + r"\b" for host in _HOSTS))
# A path of one person's machine: the home folders and the places where checkouts and wheels are kept.
_MACHINE_PATH = re.compile("|".join(rf"(?<![\w.{{}}/-])/{folder}/[\w.]" for folder in ("work", "root", "home", "Users", "opt/wheels")))
_ADDRESS = re.compile("[a-z]:" + "//")
_UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "Not" + "ImplementedError")) + r")\b")
_CHECKSUMS = ("deploy/tools/go.sum", "requirements/")
_TARGET = re.compile(r"^(?P<name>[a-zA-Z][\w-]*)\s*:(?![:=])(?P<rest>.*)$")


def no_registry_is_named(source: Source) -> Iterator[Finding]:
    """No file names the host of a package or image registry: where packages come from is each installation's own affair.

    To comply: leave the host out (`repository: terrace/service`), and let pip, go or the cluster's settings supply it.
    """
    yield from _matches(source, _REGISTRY_HOST, "names the registry host")


def no_machine_is_named(source: Source) -> Iterator[Finding]:
    """No file names a path of the machine on which it was written: it would be wrong on every other.

    To comply: build paths from the repository's root, a setting or a temporary directory; say `~` in documents.
    """
    yield from _matches(source, _MACHINE_PATH, "names the machine path")


def locks_carry_no_address(source: Source) -> Iterator[Finding]:
    """A lock holds names, versions and hashes only: the hash is the proof, wherever the file was fetched from.

    To comply: write locks with requirements/compile.sh, which leaves addresses out.
    """
    if (source.path.startswith("requirements/") and source.path.endswith(".txt")) or source.path == "deploy/tools/go.sum":
        yield from _matches(source, _ADDRESS, "carries an address:")


def nothing_is_left_for_later(source: Source) -> Iterator[Finding]:
    """The tree holds no promises: what is missing is an issue, not a comment or a function that raises.

    To comply: write it, or leave it out and say so in the README.
    """
    if not source.path.startswith(_CHECKSUMS):
        yield from _matches(source, _UNFINISHED, "leaves for later:")


def make_targets_are_documented(source: Source) -> Iterator[Finding]:
    """`make help` lists every target, so each has one line of help behind `##`.

    To comply: write `name: prerequisites ## What it does`. Targets that are files (with a dot or a slash) are exempt.
    """
    if source.path != "Makefile":
        return
    for number, line in enumerate(source.text.splitlines(), start=1):
        target = _TARGET.match(line)
        if target and not re.search(r"## \S", target["rest"]):
            yield Finding(number, f"target {target['name']} has no ## line")


def _matches(source: Source, pattern: re.Pattern[str], message: str) -> Iterator[Finding]:
    for number, line in enumerate(source.text.splitlines(), start=1):
        found = pattern.search(line)
        if found:
            yield Finding(number, f"{message} {found.group(0)}")


RULES: tuple[Rule, ...] = (
    no_registry_is_named,
    no_machine_is_named,
    locks_carry_no_address,
    nothing_is_left_for_later,
    make_targets_are_documented,
)
