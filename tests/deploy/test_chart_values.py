from __future__ import annotations

import re

import jsonschema
import pytest

from tests.deploy import chart

OBJECTS = dict(chart.objects(chart.schema()))


def test_schema_is_a_valid_schema() -> None:
    jsonschema.Draft7Validator.check_schema(chart.schema())


def test_default_values_pass_the_schema() -> None:
    jsonschema.Draft7Validator(chart.schema()).validate(chart.values())


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    assert set(chart.leaves(chart.values())) == set(chart.schema_leaves(chart.schema()))


def test_schema_holds_the_objects_that_the_rules_below_look_at() -> None:
    assert {"#", "#/properties/api/properties/resources/properties/limits", "#/definitions/peers/items"} <= set(OBJECTS)


@pytest.mark.parametrize("place", OBJECTS)
def test_every_object_refuses_unknown_names(place: str) -> None:
    assert OBJECTS[place].get("additionalProperties") is False


@pytest.mark.parametrize("place", OBJECTS)
def test_every_required_name_is_a_property(place: str) -> None:
    assert set(OBJECTS[place].get("required", [])) <= set(OBJECTS[place].get("properties", {}))


@pytest.mark.parametrize("name", chart.schema_leaves(chart.schema()))
def test_every_value_is_described_and_bounded(name: str) -> None:
    leaf = chart.schema_leaves(chart.schema())[name]
    bounds = {"integer": "maximum", "array": "maxItems", "object": "maxProperties", "string": "maxLength"}

    assert leaf["description"].endswith(".")
    assert leaf.get("type") == "boolean" or "enum" in leaf or "allOf" in leaf or bounds[leaf["type"]] in leaf


def test_readme_table_says_what_values_and_schema_say() -> None:
    expected = chart.expected_rows()

    assert chart.readme_rows() == expected, f"the table should read\n{chart.table(expected)}"


def test_image_reference_names_no_registry_host() -> None:
    first = chart.values()["image"]["repository"].split("/")[0]

    assert not re.search(r"[.:]|^localhost$", first)


def test_chart_installs_the_version_of_the_service() -> None:
    project = (chart.ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert f'version = "{chart.metadata()["appVersion"]}"' in project
