"""`make mutants`: change the quota tree and the decision core a little, again and again, and see whether the tests notice.

Works on a copy in a temporary directory. Mutants are drawn by seed, evenly over the modules, until the time is up; a survivor is
printed with its place and is either a missing test or a change that means the same. Exit status 1 when fewer than
KILLED_PERCENT_MINIMUM are noticed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.mutants.mutate import Mutant, mutants

ROOT = Path(__file__).parents[2]
COPIED = ("domain", "quotas", "scheduler", "tests/__init__.py", "tests/quotas", "tests/decision", "pyproject.toml")
TARGETS = ("quotas", "scheduler/decision")
SECONDS = 900
RUN_SECONDS_MAXIMUM = 90  # a mutant that loops for ever is noticed
KILLED_PERCENT_MINIMUM = 90
# The random worlds cost a minute and say little about which line is wrong; everything else has to notice.
TESTS = ("tests/quotas", "tests/decision", "--ignore=tests/decision/test_random_worlds.py")


def main() -> int:
    """Draw mutants until the time is up and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a module's path")
    arguments = parser.parse_args()
    modules = [path.relative_to(ROOT) for target in TARGETS for path in sorted((ROOT / target).glob("*.py"))]
    modules = [path for path in modules if arguments.only in str(path) and path.name != "__init__.py"]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy_into(copy)
        if _is_noticed(copy, TESTS):
            print("the tests fail without any change", file=sys.stderr)
            return 1
        return _report(copy, _drawn(modules, arguments.seed), arguments.seconds)


def _copy_into(folder: Path) -> None:
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "service", "sim"))
        elif source.exists():
            shutil.copy(source, target)


def _drawn(modules: list[Path], seed: int) -> Iterator[tuple[Path, Mutant]]:
    """Yield mutants, one module after the other, so that a short run sees all of them."""
    left = {module: list(mutants((ROOT / module).read_text(encoding="utf-8"))) for module in modules}
    for found in left.values():
        random.Random(seed).shuffle(found)
    while any(left.values()):
        for module, found in left.items():
            if found:
                yield module, found.pop()


def _report(copy: Path, drawn: Iterator[tuple[Path, Mutant]], seconds: int) -> int:
    began = time.monotonic()
    tried, survivors = 0, 0
    for module, mutant in drawn:
        if time.monotonic() - began > seconds:
            break
        tried += 1
        if not _dies(copy, module, mutant):
            survivors += 1
            print(f"survives {module}:{mutant.line}: {_line(mutant.before)}  ->  {_line(mutant.after)}", flush=True)
    percent = 100 * (tried - survivors) // max(tried, 1)
    print(f"{tried} mutants in {time.monotonic() - began:.0f} s, {tried - survivors} noticed ({percent} %), {survivors} survive")
    return 0 if percent >= KILLED_PERCENT_MINIMUM else 1


def _dies(copy: Path, module: Path, mutant: Mutant) -> bool:
    original = (copy / module).read_text(encoding="utf-8")
    (copy / module).write_text(mutant.source, encoding="utf-8")
    try:
        near = [f"tests/{'quotas' if module.parts[0] == 'quotas' else 'decision'}/test_{module.stem}.py"]
        near = [test for test in near if (copy / test).exists()]
        return (bool(near) and _is_noticed(copy, tuple(near))) or _is_noticed(copy, TESTS)
    finally:
        (copy / module).write_text(original, encoding="utf-8")


def _is_noticed(copy: Path, tests: tuple[str, ...]) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *tests]
    try:
        return subprocess.run(command, cwd=copy, capture_output=True, timeout=RUN_SECONDS_MAXIMUM, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def _line(text: str) -> str:
    return " ".join(text.split())[:100]


if __name__ == "__main__":
    raise SystemExit(main())
