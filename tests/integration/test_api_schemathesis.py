"""Requests that the OpenAPI document allows, and such as it does not: every answer is one that the document has.

``schemathesis`` makes them, always the same ones, and follows the document's links from a start to what is done with the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode, HookContext, Response
from schemathesis.checks import CheckContext
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    NotAServerErrorConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema

from orchestrator.authorization import Role
from orchestrator.db.session import Database
from orchestrator.services.api_keys import create_key
from tests.background import Background
from tests.integration import api_flows
from tests.integration.api_answers import EXPECTED_5XX, find_fault
from tests.integration.api_server import serve_api

ENDLESS: Final = "follow_events"
"""The operation whose answers have no end."""
START: Final = "/api/processes/{workflow}"

SETTINGS: Final = settings(
    max_examples=3,  # of each operation and kind
    stateful_step_count=5,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@dataclass(frozen=True)
class Target:
    """A server: what its document says, and the headers that open it."""

    headers: dict[str, str]
    schema: BaseSchema


@pytest.fixture
def target(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    background = Background()
    database = Database(database_url, pool_size=5, connect_timeout=30, application_name="tests")
    background.run(database.open())
    try:
        background.run(api_flows.register(database, monkeypatch))
        key = background.run(make_key(database))
        with serve_api(background, database, auth=("api-keys",)) as url:
            answer = requests.get(f"{url}/api/openapi.json", timeout=60)
            assert answer.status_code == 200, answer.text
            document = answer.json()
            document["paths"] = {
                path: {method: without_conditions(one) for method, one in operations.items()}
                for path, operations in document["paths"].items()
                if all(one.get("operationId") != ENDLESS for one in operations.values())
            }
            checks = ChecksConfig(
                not_a_server_error=NotAServerErrorConfig(expected_statuses=["2xx", "4xx", *map(str, EXPECTED_5XX)]),
                # What fits the document may still not fit the workflow's form, or the state of the process.
                positive_data_acceptance=PositiveDataAcceptanceConfig(enabled=False),
            )
            headers = {"Authorization": f"Bearer {key}"}
            generation = GenerationConfig(with_security_parameters=False)
            project = ProjectConfig(base_url=url, headers=headers, checks=checks, generation=generation)
            config = SchemathesisConfig(seed=1, projects=ProjectsConfig(default=project))
            yield Target(headers, schemathesis.openapi.from_dict(document, config=config))
    finally:
        background.run(database.close())
        background.close()


def without_conditions(operation: dict[str, Any]) -> dict[str, Any]:
    """Leave out the header for answers that are known already.

    A request with a header that the generator has made counts as one whose key it has made, so that an answer to it would be
    "accepts invalid authentication". That the header is understood is tested by itself.
    """
    parameters = [one for one in operation.get("parameters", ()) if one["name"].lower() != "if-none-match"]
    return {**operation, "parameters": parameters}


async def make_key(database: Database) -> str:
    async with database.transaction() as session:
        return (await create_key(session, "tests", Role.ADMIN, "tests", None)).secret


def is_well_made(_: CheckContext, response: Response, case: Case[Any]) -> None:
    """Check what every answer keeps to."""
    headers = {name.lower(): values[0] for name, values in response.headers.items()}
    if case.operation.path == "/api/health/ready":
        return  # it has a document of its own
    fault = find_fault(response.status_code, headers, response.text)
    assert fault is None, fault


ANY_TEXT: Final = r"^[^\x00]*$"


def can_be_wrong(operation: Mapping[str, Any]) -> bool:
    """Return whether a request may not fit: it has a body, or a parameter that is not just any text.

    Of other operations the generator makes nothing, after seconds.
    """
    kinds = [one["schema"] for one in operation.get("parameters", ())]
    return "requestBody" in operation or any(one.get("pattern") != ANY_TEXT for one in kinds)


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
def test_every_answer_is_one_that_the_document_has(target: Target, mode: GenerationMode) -> None:
    session = requests.Session()
    faults: list[FailureGroup] = []
    for found in target.schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not can_be_wrong(operation.definition.raw):
            continue

        @SETTINGS
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Case[Any]) -> None:
            case.call_and_validate(session=session, additional_checks=[is_well_made])

        try:
            send()
        except FailureGroup as error:
            faults.append(error)
    session.close()
    assert not faults, "\n".join(map(str, faults))


def test_what_follows_a_start_is_answered_as_the_document_says(target: Target) -> None:
    """By the document's links: start, then resume, retry, abort, explain."""
    seen: Counter[tuple[str, int]] = Counter()

    def is_about_a_process(context: HookContext) -> bool:
        path = "" if context.operation is None else context.operation.path
        return path == START or ("{process_id}" in path and "{token}" not in path)

    class Machine(target.schema.include(is_about_a_process).as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            del case
            return {"headers": target.headers}

        def before_call(self, case: Case[Any]) -> None:
            if case.operation.path == START:
                case.path_parameters["workflow"], case.body = "asking", []

        def after_call(self, response: Response, case: Case[Any]) -> None:
            seen[case.operation.label, response.status_code] += 1
            super().after_call(response, case)

    Machine.run(settings=settings(SETTINGS, max_examples=12))
    assert seen[f"POST {START}", 201], "nothing was started"
    assert any("{process_id}" in label and status < 300 for label, status in seen), "no link was followed"
