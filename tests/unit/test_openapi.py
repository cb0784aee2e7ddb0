"""The OpenAPI document: valid, complete in its errors, with an example of every body that fits its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from orchestrator.api.app import create_inner_app
from orchestrator.api.context import ApiContext
from orchestrator.api.openapi import make_example
from orchestrator.broker.publisher import Publisher
from orchestrator.db.session import Database
from orchestrator.settings import Settings
from tests.architecture.repository import files, text

SETTINGS = Settings(
    _env_file=None,
    database_url="postgresql://nobody@127.0.0.1:1/none",
    amqp_url="amqp://nobody@127.0.0.1:1/",
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    context = ApiContext(SETTINGS, cast("Database", None), cast("Publisher", None))
    return create_inner_app(context).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, found in document["paths"].items():
        for method, operation in found.items():
            yield f"{method.upper()} {path}", operation


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []
    assert [place for place, one in operations(document) if not one.get("description") or not one.get("tags")] == []
    described = {one["name"] for one in document["tags"] if one["description"]}
    assert {tag for _, one in operations(document) for tag in one["tags"]} - described == set()


def test_every_call_with_curl_in_the_docs_is_one_of_the_document(document: dict[str, Any]) -> None:
    """Some were for another port than the programs' default, where nothing answered."""
    known = {re.sub(r"\{\w+\}", "*", place) for place, _ in operations(document)}
    calls = [
        (name, line)
        for name in files()
        if name.endswith(".md")
        for line in re.findall(r"curl (?:[^\n\\]|\\[\s\S])*", text(name))
        if "/api/" in line and ("localhost" in line or "127.0.0.1" in line)
    ]
    assert len(calls) > 10
    assert [call for call in calls if not is_known(call[1], known)] == []


def is_known(call: str, known: set[str]) -> bool:
    """Return whether a call goes to the default port, and to a path with a method that it has."""
    found = re.search(r"(?:localhost|127\.0\.0\.1):8000(/api/[^\s?'\"]+)", call)
    if found is None:
        return False
    written = re.search(r"-X (\w+)", call)
    method = written[1] if written else "POST" if " -d " in call else "GET"
    if found[1] in {"/api/openapi.json", "/api/docs"}:
        return method == "GET"
    names = re.sub(r"/(?:\$?ID|create_port)(?=/|$)", "/*", found[1])
    return f"{method} {names}" in known


def test_a_body_that_need_not_be_sent_is_not_null(document: dict[str, Any]) -> None:
    abort = document["paths"]["/api/processes/{process_id}/abort"]["put"]["requestBody"]
    assert "required" not in abort
    assert abort["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/AbortRequest"}


def test_every_model_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    """Of two with one name FastAPI puts the module before it, and a generator of clients leaves both out."""
    assert [name for name in document["components"]["schemas"] if "__" in name] == []


def test_every_error_of_every_path_is_documented_as_a_problem_document(document: dict[str, Any]) -> None:
    for place, operation in operations(document):
        responses = operation["responses"]
        if "health" in operation["tags"]:
            continue
        expected = {"500", "503"}
        if operation.get("parameters") or "requestBody" in operation:
            expected.add("422")
        if "requestBody" in operation:
            expected |= {"400", "413"}
        if operation.get("security"):
            expected |= {"401", "403"}
        assert expected - responses.keys() == set(), place
        for status, response in responses.items():
            if int(status) >= 400:
                (media,) = response["content"]
                assert media == "application/problem+json", place
                assert response["description"], place
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_body_and_answer_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    wrong = []
    for place, operation in operations(document):
        parts = [operation["requestBody"]] if "requestBody" in operation else []
        for part in [*parts, *operation["responses"].values()]:
            for kind, media in part.get("content", {}).items():
                schema = media.get("schema")
                if schema is None or not kind.endswith("json"):
                    continue
                examples = (
                    [media["example"]]
                    if "example" in media
                    else [one["value"] for one in media.get("examples", {}).values()]
                )
                if not examples:
                    wrong.append(f"{place}: no example")
                checker = Draft202012Validator({**schema, "components": document["components"]})
                wrong += [f"{place}: {error.message}" for one in examples for error in checker.iter_errors(one)]
    assert wrong == []


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({"type": "string", "examples": ["ams-1"]}, "ams-1"),
        ({"type": "string", "format": "uuid"}, "3f2a9c41-5b7e-4c1d-9f2a-8e6d4b3c2a10"),
        ({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 5}]}, 5),
        (
            {"type": "object", "properties": {"step": {"type": "string"}, "on": {"type": "boolean"}}},
            {"step": "Configure", "on": True},
        ),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, ["a"]),
        ({"$ref": "#/components/schemas/Tree"}, {"children": [{"children": [{"children": []}]}]}),
        ({}, {}),
    ],
)
def test_an_example_is_made_of_a_schema(schema: dict[str, Any], example: Any) -> None:
    tree = {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
    }
    assert make_example(schema, {"Tree": tree}) == example
