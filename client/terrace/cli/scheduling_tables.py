"""What the scheduling commands print for people: the drawn quota tree, one node, an import's plan, windows, the policy.

Owns the columns and sentences; tables.py calls it. On a terminal the tree is drawn with lines, in a pipe with plain characters.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from terrace import reasons, units
from terrace.cli.text import Grid
from terrace.models.scheduling import (
    MaintenanceAnswer,
    PolicyAnswer,
    QuotaImportAnswer,
    QuotaNodeAnswer,
    QuotaNodeResource,
    RepeatAnswer,
    ReservationAnswer,
    RulesAnswer,
)

NOTHING = "-"
UNLIMITED = "unlimited"
SHARE_SCALE = 1_000_000
UNLIMITED_FROM = 1 << 62
_DRAWN = ("├─ ", "└─ ", "│  ")
_PLAIN = ("|- ", "`- ", "|  ")
_BLANK = "   "
_RULES = ("within_tenant", "reclaim_within_cohort", "borrow_within_cohort", "when_can_borrow", "when_can_preempt")


def tree(nodes: Sequence[QuotaNodeAnswer]) -> Grid:
    """Return the tree as a grid: a line per node and resource, a node's name on its first."""
    columns = ["node", "kind", "weight", "share", "resource", "nominal", "may borrow", "may lend", "held"]
    grid = Grid(columns, frozenset({"weight", "share", "nominal", "may borrow", "may lend", "held"}))
    prefixes = _prefixes(nodes)
    for node in nodes:
        first, rest = prefixes[node.id]
        lines = [_amounts(resource) for resource in node.resources] or [[NOTHING] * 5]
        for at, amounts in enumerate(lines):
            head = (
                [f"{first}{node.name}", node.kind, units.gpus(node.weight_milli), share(node)] if at == 0 else [rest.rstrip(), "", "", ""]
            )
            grid.add(*head, *amounts)
    return grid


def _prefixes(nodes: Sequence[QuotaNodeAnswer]) -> dict[str, tuple[str, str]]:
    """Return for each node what stands before its name, and before the further lines of it and of what is below it."""
    branch, last, through = _DRAWN if sys.stdout.isatty() else _PLAIN
    children: dict[str | None, list[str]] = {}
    for node in nodes:
        children.setdefault(node.parent_id, []).append(node.id)
    found: dict[str, tuple[str, str]] = {}
    below: dict[str, str] = {}  # what stands before the children of a node
    for node in nodes:  # parents come before children
        above, mark, below[node.id] = "", "", ""
        if node.parent_id is not None:
            is_last = children[node.parent_id][-1] == node.id
            above, mark = below[node.parent_id], last if is_last else branch
            below[node.id] = above + (_BLANK if is_last else through)
        found[node.id] = (above + mark, below[node.id] + (through if children.get(node.id) else ""))
    return found


def _amounts(resource: QuotaNodeResource) -> list[str]:
    limits = (resource.nominal, resource.borrowing_limit, resource.lending_limit, resource.held)
    return [resource.resource, *(_amount(resource.resource, value) for value in limits)]


def _amount(resource: str, value: int | None) -> str:
    if value is None:
        return NOTHING
    if value >= UNLIMITED_FROM:
        return UNLIMITED
    if resource == "memory":
        return units.memory_about(value)
    return units.cpus(value) if resource == "cpu" else units.gpus(value)


def share(node: QuotaNodeAnswer) -> str:
    """Return a share with three decimals: 0.167."""
    return NOTHING if node.share_micro is None else f"{node.share_micro / SHARE_SCALE:.3f}"


def node_lines(node: QuotaNodeAnswer) -> list[str]:
    """Return what a node is: kind, weight, share and rules."""
    lines = [f"{node.kind} {node.name}: weight {units.gpus(node.weight_milli)}, share {share(node)}"]
    if node.kind != "cohort":
        lines += [f"  {line}" for line in rules_lines(node)]
    return lines


def rules_lines(rules: RulesAnswer | QuotaNodeAnswer) -> list[str]:
    """Return the rules, one a line."""
    lines = [f"{name}: {getattr(rules, name)}" for name in _RULES]
    if rules.borrow_max_priority is not None:
        lines.append(f"borrow_max_priority: {rules.borrow_max_priority}")
    cap = "none" if rules.user_cap_milli_gpu is None else f"{units.gpus(rules.user_cap_milli_gpu)} GPUs"
    return [*lines, f"user_cap: {cap}"]


def node_grid(node: QuotaNodeAnswer) -> Grid:
    """Return the quotas of a node. `owns` is what it and those below lend it; `available` is what it could hold more now."""
    columns = ["resource", "nominal", "may borrow", "may lend", "owns", "held", "borrowed", "available"]
    grid = Grid(columns, frozenset(columns[1:]))
    for item in node.resources:
        rest = [_amount(item.resource, value) for value in (item.subtree, item.held, item.borrowed)]
        available = UNLIMITED if item.available is None else _signed(item.resource, item.available)
        grid.add(*_amounts(item)[:4], *rest, available)
    return grid


def _signed(resource: str, value: int) -> str:
    return f"-{_amount(resource, -value)}" if value < 0 else _amount(resource, value)


def import_lines(answer: QuotaImportAnswer) -> list[str]:
    """Return what an import does or did, and what it left out."""
    verbs = {"create": "made" if answer.is_applied else "would make", "change": "changed" if answer.is_applied else "would change"}
    lines = []
    for change in answer.changes:
        of = f" of {change.resource}" if change.resource is not None else ""
        after = ", ".join(f"{name} {_told(change.resource, name, value)}" for name, value in change.after.items())
        before = ", ".join(f"{name} {_told(change.resource, name, value)}" for name, value in change.before.items())
        lines.append(f"{verbs[change.action]} {change.kind} {change.name}{of}: {after}{f' (was {before})' if before else ''}")
    if not answer.changes:
        lines.append("nothing to change")
    return [*lines, *(f"left out: {line}" for line in answer.left_out)]


def _told(resource: str | None, name: str, value: Any) -> str:
    if value is None:
        return "none"
    if resource is not None and isinstance(value, int):
        return _amount(resource, value)
    return units.gpus(value) if name == "weight_milli" else str(value)


def reservations(found: Sequence[ReservationAnswer]) -> Grid:
    """Return capacity reservations as a grid."""
    grid = Grid(["reservation", "tenant", "flavor", "gpus", "from", "to", "repeats", "unused", "state"], frozenset({"gpus", "unused"}))
    for item in found:
        unused = NOTHING if item.counted_until is None else units.gpu_time(item.unused_milli_gpu_ms)
        span = reasons.local(item.start), reasons.local(item.end), repeats(item.repeat)
        grid.add(item.name, item.tenant, item.flavor, units.gpus(item.milli_gpu), *span, unused, state(item))
    return grid


def maintenance(found: Sequence[MaintenanceAnswer]) -> Grid:
    """Return maintenance windows as a grid."""
    grid = Grid(["window", "nodes", "from", "to", "repeats", "state"])
    for item in found:
        grid.add(item.name, ", ".join(item.nodes), reasons.local(item.start), reasons.local(item.end), repeats(item.repeat), state(item))
    return grid


def repeats(repeat: RepeatAnswer | None) -> str:
    """Return how a window recurs, in words."""
    if repeat is None:
        return "once"
    days = "every day" if repeat.every_days == 1 else f"every {repeat.every_days} days"
    return f"{days} until {reasons.local(repeat.until)}, {repeat.time_zone}"


def state(item: ReservationAnswer | MaintenanceAnswer) -> str:
    """Return whether a window was cancelled, and when."""
    return "set" if item.cancelled_at is None else f"cancelled {reasons.local(item.cancelled_at)}"


def policy(answer: PolicyAnswer) -> Grid:
    """Return the policy as a grid of fields."""
    grid = Grid(["field", "value", "set by"], frozenset({"value"}))
    for name, value in answer.model_dump(exclude={"chosen", "set_at"}).items():
        grid.add(name, _field(name, value), "operator" if name in answer.chosen else "default")
    return grid


def _field(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_ms"):
        return f"{value} ms" if value % units.MILLI else units.duration(value // units.MILLI)
    return str(value)
