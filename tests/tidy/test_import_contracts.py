"""The import contracts name every package on disk.

import-linter judges only the packages that it is told about, so a folder that nobody listed would be free to import
anything. These tests compare pyproject.toml with the tree; a new package joins the root packages, a layer and, if it is
pure, the forbidden contract.
"""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from tests.tidy.sources import ROOT, python_sources

# Folders with Python that are not packages of the service: nothing imports them.
NOT_PACKAGES = {"benchmarks", "deploy", "docs", "examples", "tests"}
# The distribution `terrace` lives in client/ and knows no layer below it: its own contracts keep it thin.
CLIENT = {"client": "terrace"}
PURE_PACKAGES = {"domain", "quotas", "scheduler.decision", "billing.calc"}
NEVER_IN_PURE_PACKAGES = {
    "sqlmodel", "sqlalchemy", "fastapi", "pydantic", "httpx", "ray", "kubernetes", "pynvml", "prometheus_client",
    "asyncio", "logging", "random", "time", "os", "uuid",
}  # fmt: skip
PACKAGES_OF_SEVERAL_LAYERS = ("scheduler", "billing")


@pytest.fixture(scope="module")
def linter() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return settings


def layered(linter: dict[str, Any]) -> set[str]:
    layers = next(contract["layers"] for contract in linter["contracts"] if contract["type"] == "layers")
    return {name.strip() for layer in layers for name in layer.split("|")}


def pure_contract(linter: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(contract for contract in linter["contracts"] if contract["name"].startswith("Pure packages"))
    return found


def folders_with_python(depth: int) -> set[tuple[str, ...]]:
    paths = (source.path.split("/") for source in python_sources())
    return {tuple(parts[:depth]) for parts in paths if len(parts) > depth}


def test_every_folder_with_python_is_a_root_package(linter: dict[str, Any]) -> None:
    on_disk = {CLIENT.get(name, name) for (name,) in folders_with_python(1)} - NOT_PACKAGES

    assert set(linter["root_packages"]) == on_disk


def test_every_root_package_of_the_service_has_a_layer(linter: dict[str, Any]) -> None:
    assert {name.split(".")[0] for name in layered(linter)} == set(linter["root_packages"]) - set(CLIENT.values())


@pytest.mark.parametrize("package", PACKAGES_OF_SEVERAL_LAYERS)
def test_every_part_of_a_package_of_several_layers_has_a_layer(linter: dict[str, Any], package: str) -> None:
    on_disk = {".".join(parts) for parts in folders_with_python(2) if parts[0] == package}

    assert on_disk == {name for name in layered(linter) if name.startswith(f"{package}.")}


def test_pure_packages_are_held_to_purity(linter: dict[str, Any]) -> None:
    contract = pure_contract(linter)

    assert set(contract["source_modules"]) == PURE_PACKAGES
    assert set(contract["forbidden_modules"]) >= NEVER_IN_PURE_PACKAGES


def test_every_contract_names_packages_that_exist(linter: dict[str, Any]) -> None:
    named = {name for contract in linter["contracts"] for name in contract.get("source_modules", [])} | layered(linter)
    on_disk = {".".join(parts) for depth in (1, 2) for parts in folders_with_python(depth)} | set(CLIENT.values())

    assert named <= on_disk
