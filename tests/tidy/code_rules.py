"""House rules about Python code. Each docstring tells the reason for the rule and how to comply with it.

A rule is a function from one file to what it finds there. It owns no file list and no test: `test_code_rules.py` applies
every rule of `RULES` to the whole tree, and to a sample that it must refuse.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.sources import Finding, Rule, Source

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
TEST_MODULE_LINES_MAX = 300
MODULE_DOCSTRING_LINES_MIN = 3
SMALL_MODULE_LINES_MAX = 40

# The ratchet: files and functions that were longer than allowed when the rule came, with their length then. An entry may
# shrink, never grow, and leaves this table when it fits. It starts empty and should stay so.
LONG_FUNCTIONS: dict[str, int] = {}
LONG_MODULES: dict[str, int] = {}

# Where the wall clock may be read. Everything else takes now_ms from its caller.
CLOCK_EDGES = (
    "agents/",
    "api/clock.py",
    "benchmarks/",
    "billing/service/clock.py",
    "client/",
    "console/clock.py",
    "scheduler/service/",
    "terraced/clock.py",
)
_CLOCK_READINGS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}

EXACT_MODULES = ("billing/calc/", "domain/money.py", "domain/intervals.py")
VAGUE_MODULE_NAMES = {"util", "utils", "misc"}
FIRST_PARTY = {"agents", "api", "billing", "console", "domain", "executors", "quotas", "scheduler", "store", "terrace", "terraced"}
# A command imports only what it runs, so that `--help` answers at once.
LATE_IMPORT_EDGES = ("terraced/", "client/terrace/cli")
# A revision lists every table once and is never edited again: cutting it up would hide what it does.
REVISIONS = "store/migrations/versions/"
WITHOUT_MODULE_DOCSTRING = ("tests/", "store/migrations/versions/")


def functions_fit_on_a_screen(source: Source) -> Iterator[Finding]:
    """A function has at most 70 lines, so that it can be read at once.

    To comply: keep the ifs in the parent and move straight work into helpers below it, named for the question they answer.
    """
    if source.path.startswith(REVISIONS):
        return
    for line, name, length in function_lengths(source):
        allowed = LONG_FUNCTIONS.get(f"{source.path}:{name}", FUNCTION_LINES_MAX)
        if length > allowed:
            yield Finding(line, f"{name} has {length} lines, allowed are {allowed}")


def modules_fit_in_the_head(source: Source) -> Iterator[Finding]:
    """A module has at most 500 lines, a test module 300: a long test file is where tests go to hide.

    To comply: find the second thing that the module owns and give it its own file, or split tests by behaviour.
    """
    if source.path.startswith(REVISIONS):
        return
    length = source.text.count("\n")
    limit = TEST_MODULE_LINES_MAX if source.is_test else MODULE_LINES_MAX
    allowed = LONG_MODULES.get(source.path, limit)
    if length > allowed:
        yield Finding(1, f"has {length} lines, allowed are {allowed}")


def modules_say_what_they_own(source: Source) -> Iterator[Finding]:
    """A module opens with a docstring of three lines or more: what it owns, what it does not, who calls it.

    To comply: write it. One line does for `__init__.py` and for modules of at most 40 lines; empty files and tests need none.
    """
    if source.path.startswith(WITHOUT_MODULE_DOCSTRING) or not source.text.strip():
        return
    docstring = ast.get_docstring(source.tree) or ""
    is_small = source.path.endswith("__init__.py") or source.text.count("\n") <= SMALL_MODULE_LINES_MAX
    needed = 1 if is_small else MODULE_DOCSTRING_LINES_MIN
    if len(docstring.splitlines()) < needed:
        yield Finding(1, f"needs a module docstring of at least {needed} line(s)")


def only_edges_read_the_clock(source: Source) -> Iterator[Finding]:
    """The wall clock is read at named edges only, so that everything else can be replayed at any time.

    To comply: take `now_ms` as an argument. A new edge reads the clock in one module, which joins `CLOCK_EDGES`.
    `time.monotonic` is free: it measures durations and decides nothing.
    """
    if source.path.startswith(CLOCK_EDGES):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and _last_two(node) in _CLOCK_READINGS:
            yield Finding(node.lineno, f"{_last_two(node)} reads the wall clock")
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            names = {alias.name for alias in node.names} & {"time", "time_ns"}
            yield from (Finding(node.lineno, f"from time import {name} reads the wall clock") for name in sorted(names))


def money_is_counted_in_integers(source: Source) -> Iterator[Finding]:
    """Billing arithmetic is exact: no float literal, no float(), no true division.

    To comply: count the smallest accounted unit, use `//` or `divmod`, and let `money.round_half_even` be the one that rounds.
    """
    if not source.path.startswith(EXACT_MODULES):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield Finding(node.lineno, f"float literal {node.value}")
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield Finding(node.lineno, "true division")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float":
            yield Finding(node.lineno, "float()")


def modules_have_telling_names(source: Source) -> Iterator[Finding]:
    """No module or folder is called utils: the name says nothing, so anything lands there.

    To comply: name the thing, as in `intervals.py` or `backoff.py`.
    """
    parts = source.path.removesuffix(".py").split("/")
    vague = sorted(VAGUE_MODULE_NAMES.intersection(parts))
    if vague:
        yield Finding(1, f"{vague[0]} is not a name for a module")


def first_party_imports_stand_on_top(source: Source) -> Iterator[Finding]:
    """Our own packages are imported at the top of a module: an import inside a function hides a cycle or a refused layer.

    To comply: move the code down a layer, or pass the thing in. Commands may import late, for a quick `--help`.
    """
    if source.path.startswith(LATE_IMPORT_EDGES):
        return
    for function in ast.walk(source.tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                own = [name for name in _imported(node) if name.split(".")[0] in FIRST_PARTY]
                if own and isinstance(node, ast.stmt):
                    yield Finding(node.lineno, f"{function.name} imports {own[0]}")


def tests_do_not_sleep(source: Source) -> Iterator[Finding]:
    """A sleep in a test is either too short on a busy machine or too long on all the others.

    To comply: pass the time in; where real processes are involved, poll with a deadline (tests/support/waiting.py) or wait
    on an event or on the process.
    """
    if not source.is_test:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and _last_two(node) == "time.sleep":
            yield Finding(node.lineno, "time.sleep")
        elif isinstance(node, ast.ImportFrom) and node.module == "time" and any(alias.name == "sleep" for alias in node.names):
            yield Finding(node.lineno, "from time import sleep")


def tests_can_fail(source: Source) -> Iterator[Finding]:
    """No test is expected to fail or skipped always: such a test guards nothing and looks green.

    To comply: repair it or delete it. A skip stands behind a condition and gives its reason.
    """
    if not source.is_test:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and _last_two(node) in {"mark.xfail", "pytest.xfail", "mark.skip"}:
            yield Finding(node.lineno, f"{_last_two(node)} without a condition")
        elif isinstance(node, ast.Call) and _last_two(node.func) == "mark.skipif" and _is_constant(node.args[:1]):
            yield Finding(node.lineno, "skipif on a constant")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            yield from (Finding(step.lineno, "pytest.skip without a condition") for step in node.body if _is_skip(step))


def tests_use_fakes_not_mocks(source: Source) -> Iterator[Finding]:
    """Patching our own functions means that a seam is missing, and the test then checks the patch.

    To comply: pass the dependency in, and write a small fake named for its sin.
    """
    if not source.is_test:
        return
    for node in ast.walk(source.tree):
        mocks = [name for name in _imported(node) if name.startswith(("unittest.mock", "mock", "pytest_mock"))]
        if mocks and isinstance(node, ast.stmt):
            yield Finding(node.lineno, f"imports {mocks[0]}")


def function_lengths(source: Source) -> Iterator[tuple[int, str, int]]:
    """Yield (line, name, number of lines) of each function, its docstring included and its decorators not."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def _last_two(node: ast.expr) -> str:
    """Return the last two names of a dotted expression: `datetime.now` for `datetime.datetime.now`; empty for anything else."""
    if not isinstance(node, ast.Attribute):
        return ""
    owner = node.value
    if isinstance(owner, ast.Name):
        return f"{owner.id}.{node.attr}"
    return f"{owner.attr}.{node.attr}" if isinstance(owner, ast.Attribute) else ""


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _is_constant(arguments: list[ast.expr]) -> bool:
    return bool(arguments) and isinstance(arguments[0], ast.Constant)


def _is_skip(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _last_two(statement.value.func) == "pytest.skip"


RULES: tuple[Rule, ...] = (
    functions_fit_on_a_screen,
    modules_fit_in_the_head,
    modules_say_what_they_own,
    only_edges_read_the_clock,
    money_is_counted_in_integers,
    modules_have_telling_names,
    first_party_imports_stand_on_top,
    tests_do_not_sleep,
    tests_can_fail,
    tests_use_fakes_not_mocks,
)
