from __future__ import annotations

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from api import examples, problem_codes
from api.permissions import PERMISSIONS
from terrace.models import agents, common, fleet, jobs, people, scheduling, usage
from tests.support.api import Api
from tests.support.api_document import Operation, document, operations

ALL = operations()
MODELS: dict[str, type[BaseModel]] = {
    name: value
    for module in (agents, fleet, jobs, people, scheduling, usage)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, common.Request | common.Answer) and value.__module__ == module.__name__
}
EVERY_ROUTE = {"400", "500", "503"}
each_operation = pytest.mark.parametrize("operation", ALL, ids=lambda operation: operation.name)


def bodies(operation: Operation) -> dict[str, dict[str, Any]]:
    """Return every body that is described, by where it is."""
    found = {"request " + kind: one for kind, one in operation.described.get("requestBody", {}).get("content", {}).items()}
    for status, answer in operation.described["responses"].items():
        found |= {f"{status} {kind}": one for kind, one in answer.get("content", {}).items()}
    return found


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Return what holds a value against a schema of the document."""
    return Draft202012Validator({**schema, "components": document()["components"]})


async def test_document_is_served_without_a_key(api_on_sqlite: Api) -> None:
    answer = await api_on_sqlite.http.get("/v1/openapi.json")

    assert answer.status_code == 200
    assert answer.json() == document()


def test_document_says_all_of_what_it_names() -> None:
    text = repr(document())

    names = set(re.findall(r"#/components/schemas/([\w-]+)", text))
    assert names - set(document()["components"]["schemas"]) == set()
    assert "HTTPValidationError" not in text


def test_operations_have_names_of_their_own() -> None:
    names = [operation.name for operation in ALL]

    assert sorted(set(names)) == sorted(names)
    assert not [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)]


@each_operation
def test_operation_says_what_it_is(operation: Operation) -> None:
    described = operation.described

    assert described["summary"]
    assert described["description"].endswith(".")
    assert len(described["tags"]) == 1
    assert operation.permissions <= PERMISSIONS
    assert described["security"] == ([{"bearer": []}] if operation.is_gated else [])


@each_operation
def test_operation_declares_its_refusals(operation: Operation) -> None:
    responses = operation.described["responses"]
    expected = EVERY_ROUTE | ({"401", "403"} if operation.is_gated else set())
    expected |= {"413", "415", "422"} if operation.body is not None else set()
    expected |= {"409"} if operation.described.get("responses", {}).get("201") and operation.name != "upload_archive" else set()
    expected |= {"404"} if operation.parameters and operation.name != "upload_archive" else set()

    assert expected <= set(responses)
    assert list(responses) == sorted(responses)
    for status, answer in responses.items():
        if int(status) >= 400:
            (media_type,) = answer["content"]
            shown = answer["content"][media_type]["examples"]
            assert media_type == problem_codes.MEDIA_TYPE
            assert {problem_codes.CODES[code].status for code in shown} == {int(status)}
            assert all(example["value"]["code"] == code for code, example in shown.items())


@each_operation
def test_every_body_has_an_example_that_fits_its_schema(operation: Operation) -> None:
    for where, body in bodies(operation).items():
        shown = [example["value"] for example in body["examples"].values()] if "examples" in body else [body["example"]]
        for value in shown:
            assert not list(validator(body["schema"]).iter_errors(value)), where


@pytest.mark.parametrize("name", sorted(examples.MODELS))
def test_example_is_what_its_wire_model_takes_and_nothing_is_missing(name: str) -> None:
    model, value = MODELS[name], examples.MODELS[name]

    read = model.model_validate(value)

    assert read.model_dump(mode="json", exclude_unset=True).keys() == value.keys()
    if issubclass(model, common.Answer) and name != "KeyCreated":
        assert value.keys() == model.model_fields.keys()
    assert validator({"$ref": f"#/components/schemas/{name}"}).is_valid(value)


def test_every_wire_model_that_a_route_speaks_has_an_example() -> None:
    spoken = {name for name in document()["components"]["schemas"] if name in MODELS}
    inside = {
        "AssignedSlice", "Assignment", "AttemptAnswer", "DeviceAnswer", "DeviceReport", "ForecastAnswer", "ObservationReport",
        "Manifest", "QuotaImportChange", "QuotaNodeResource", "ReasonAnswer", "Repeat", "RepeatAnswer", "SliceAnswer",
        "UsageCheck", "UsageRow",
    }  # fmt: skip

    assert spoken - inside == set(examples.MODELS)


def test_parameters_are_described_where_their_name_does_not_say_enough() -> None:
    ambiguous = {"cursor", "limit", "follow", "offset", "attempt", "wait_seconds", "from", "to", "by", "Idempotency-Key", "sha256"}

    silent = [
        (operation.name, parameter["name"])
        for operation in ALL
        for parameter in operation.described.get("parameters", [])
        if parameter["name"] in ambiguous and not parameter.get("description")
    ]
    assert silent == []


def test_creating_posts_take_an_idempotency_key() -> None:
    taking = {item.name for item in ALL if any(one["name"] == "Idempotency-Key" for one in item.described.get("parameters", []))}

    assert taking == {item.name for item in ALL if item.method == "POST" and "201" in item.described["responses"]}
