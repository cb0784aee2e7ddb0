"""What one GraphQL request may ask for, and that the field's user interface asks for less."""

from __future__ import annotations

import time
from typing import Any

import pytest
from graphql import parse, validate
from strawberry.types.graphql import OperationType

from orchestrator.api.graphql.limits import MAX_TOKENS, find_excess
from orchestrator.api.graphql.schema import find_schema
from tests.existing_ui import read_documents

DOCUMENTS = read_documents()
SCHEMA = find_schema(introspection=True)

LARGEST = {"first": 1000, "after": 0}
"""What the field's user interface sends to export a list."""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_document_of_the_fields_user_interface_fits_the_schema_and_the_limits(name: str) -> None:
    document = parse(DOCUMENTS[name], max_tokens=MAX_TOKENS // 2)

    assert validate(SCHEMA._schema, document) == []
    assert find_excess(document.definitions, LARGEST) is None


NESTED = "processes(first: 1000) { page { subscriptions(first: 1000) { page { processes(first: 1000) { page { note } } } } } }"


@pytest.mark.parametrize(
    ("query", "variables", "words"),
    [
        ("{ " + NESTED + " }", {}, "values, 250000 are allowed"),
        ("query ($n: Int) { " + NESTED.replace("1000", "$n") + " }", {"n": 1_000_000}, "values, 250000 are allowed"),
        ("query ($n: Int = 1000) { " + NESTED.replace("1000", "$n") + " }", {}, "values, 250000 are allowed"),
        ("{ processes(first: 1000) { page { form userPermissions { retryAllowed } } } }", {}, "values, 250000"),
        (
            "{ " + " ".join(f"p{n}: processes(first: 1000) {{ page {{ note }} }}" for n in range(200)) + " }",
            {},
            "values",
        ),
        (
            "{ productBlocks { page " + "{ dependsOn " * 12 + "{ name }" + "}" * 12 + " } }",
            {},
            "levels deep; 12 are allowed",
        ),
        (
            "{ productBlocks { page { ...a } } } fragment a on ProductBlock { dependsOn { ...b } }"
            " fragment b on ProductBlock { " + "dependsOn { " * 9 + "name " + "} " * 10,
            {},
            "levels deep",
        ),
    ],
)
def test_what_asks_for_too_much_is_named(query: str, variables: dict[str, Any], words: str) -> None:
    excess = find_excess(parse(query).definitions, variables)

    assert excess is not None
    assert words in excess


@pytest.mark.parametrize(
    "query",
    [
        "{ processes(first: 100) { page { processId steps { name } subscriptions { page { subscriptionId } } } } }",
        "{ workflows(first: 1000000) { page { name isAllowed products { name } } } }",
        "{ customers(first: 0) { page { customerId } } }",
        "{ processes(first: -5) { page { processId } } }",
        "{ __schema { types { fields { type { " + "ofType { " * 9 + "name " + "} " * 14,
    ],
)
def test_what_people_ask_for_is_allowed(query: str) -> None:
    assert find_excess(parse(query).definitions, {}) is None


def test_only_the_operation_that_is_carried_out_counts() -> None:
    document = parse("query Small { version { applicationVersions } } query Large { " + NESTED + " }")

    assert find_excess(document.definitions, {}, "Small") is None
    assert find_excess(document.definitions, {}, "Large") is not None


async def test_a_document_that_is_made_to_be_expensive_is_refused_soon() -> None:
    """Processor time, so that a busy machine does not count: checking that fields of one name agree grows by their square."""
    same = "{ " + " ".join(["version { applicationVersions }"] * (MAX_TOKENS // 4 - 10)) + " }"
    levels = "{ " * (MAX_TOKENS // 2 - 10) + "}" * (MAX_TOKENS // 2 - 10)
    began = time.process_time()

    for query in (same, levels, "{ version { applicationVersions } }" + " " * 1000 + " a" * 5000):
        result = await SCHEMA.execute(query, allowed_operation_types=[OperationType.QUERY])
        assert result is not None

    assert time.process_time() - began < 20


async def test_a_fragment_that_names_itself_is_refused() -> None:
    query = "{ productBlocks { page { ...a } } } fragment a on ProductBlock { dependsOn { ...a } }"

    result = await SCHEMA.execute(query, allowed_operation_types=[OperationType.QUERY])

    assert result.data is None
    assert "within itself" in str((result.errors or [])[0])
