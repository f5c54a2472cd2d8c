"""The chart's files as values, for the tests of deploy/helm/terrace.

It owns reading, and walking values and schema side by side. It renders nothing: that needs the Helm engine and stands in
tests/helm.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "terrace"


def values() -> dict[str, Any]:
    """Return the chart's default values."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return loaded


def schema() -> dict[str, Any]:
    """Return the chart's JSON schema of values."""
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return loaded


def metadata() -> dict[str, Any]:
    """Return Chart.yaml."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    return loaded


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return each value that is not a filled object, by its dotted name; an empty object is a leaf."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found.update(leaves(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = value
    return found


def schema_leaves(node: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return each property of the schema that is not an object with known properties, by its dotted name."""
    found: dict[str, dict[str, Any]] = {}
    for name, child in node["properties"].items():
        if "properties" in child and "patternProperties" not in child:
            found.update(schema_leaves(child, f"{prefix}{name}."))
        else:
            found[prefix + name] = child
    return found


def objects(node: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, schema) of every object anywhere in a schema, its definitions and list items included."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for name, child in node.items():
            yield from objects(child, f"{path}/{name}")


def readme_rows() -> dict[str, tuple[str, str]]:
    """Return the table of the README: dotted name to (default, meaning) as written there."""
    rows = {}
    for line in (CHART / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == 3:
            rows[cells[0].strip("`")] = (cells[1].strip("`"), cells[2])
    return rows


def expected_rows() -> dict[str, tuple[str, str]]:
    """Return what the README's table must say, from the values and the schema."""
    meanings = schema_leaves(schema())
    return {name: (json.dumps(value), meanings[name]["description"]) for name, value in leaves(values()).items()}


def table(rows: dict[str, tuple[str, str]]) -> str:
    """Return `rows` as Markdown lines, to paste into the README when it has fallen behind."""
    return "\n".join(f"| `{name}` | `{default}` | {meaning} |" for name, (default, meaning) in rows.items())
