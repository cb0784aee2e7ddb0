"""What the pages of settings and the operators' tools read over HTTP: workers, settings, explanations, the check."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import uuid4

import pytest

from orchestrator import registry
from orchestrator.db.session import Database
from orchestrator.forms import FormPage
from orchestrator.workflow import StepList, Workflow, inputstep, step
from tests.integration.api_client import open_api
from tests.integration.engine_bench import Bench, bench_of


class ApprovalPage(FormPage):
    approved: bool


@inputstep("Approve", assignee="NOC")
def approve() -> type[FormPage]:
    return ApprovalPage


@step("Configure")
def configure() -> None:
    """Do nothing."""


asks = Workflow("asks", "for tests", StepList((approve,)))
runs = Workflow("runs", "for tests", StepList((configure,)))


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, asks, runs) as made:
        yield made


async def test_a_process_is_explained_over_http(bench: Bench) -> None:
    process_id = await bench.start("asks")
    async with open_api(bench.database) as api:
        answer = await api.get(f"/api/processes/{process_id}/explain")
        unknown = await api.get(f"/api/processes/{uuid4()}/explain")
        wrong = await api.get("/api/processes/none/explain")

    assert answer.status_code == 200
    found = answer.json()
    assert found["kind"] == "input"
    assert found["summary"].startswith("waits for input of 'Approve' from NOC since ")
    assert found["summary"].endswith(" UTC")
    assert datetime.fromisoformat(found["data"]["since"]).tzinfo is not None
    assert (unknown.status_code, wrong.status_code) == (404, 422)
    assert unknown.headers["content-type"] == "application/problem+json"


async def test_the_check_says_over_http_what_the_code_of_the_program_would_break(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_id = await bench.start("asks")
    async with open_api(bench.database) as api:
        fine = (await api.get("/api/check")).json()
        monkeypatch.setattr(registry, "_instances", {})
        gone = (await api.get("/api/check")).json()

    assert fine == {"breaks": False, "unfinished": 1, "findings": [], "models": None}
    assert gone["breaks"] is True
    (finding,) = gone["findings"]
    assert (finding["key"], finding["count"], finding["process_ids"]) == ("workflow_gone", 1, [str(process_id)])


async def test_the_panel_of_workers_has_consumers_and_queues_and_says_so_when_the_broker_is_away(
    bench: Bench, amqp_url: str
) -> None:
    for _ in range(2):
        await bench.start("runs")
    await bench.runner()
    async with open_api(bench.database, amqp_url=amqp_url) as api:
        found = (await api.get("/api/settings/worker-status")).json()
    async with open_api(bench.database) as api:
        away = (await api.get("/api/settings/worker-status")).json()

    assert found["executor_type"] == "celery", "the field's user interface draws its panel for no other"
    assert found["number_of_workers_online"] == 1
    assert found["number_of_queued_jobs"] == 2
    assert found["number_of_running_jobs"] == 0
    assert [one["name"] for one in found["consumers"]] == [bench.heartbeat.name]
    assert {"orchestrator.commands", "orchestrator.steps.default"} <= {one["name"] for one in found["queues"]}
    assert (found["ready"], found["unacked"]) == (0, 2)
    assert (away["queues"], away["ready"], away["unacked"]) == (None, None, None)
    assert away["number_of_queued_jobs"] == 2


async def test_the_overview_of_settings_shows_no_password(database: Database) -> None:
    async with open_api(database, amqp_url="amqp://me:CANARY-1@127.0.0.1:1/") as api:
        answer = await api.get("/api/settings/overview")
    (group,) = answer.json()
    values = {one["env_name"]: one["env_value"] for one in group["variables"]}
    assert values["ORCHESTRATOR_AMQP_URL"] == "amqp://me@127.0.0.1:1/"
    assert values["DEFAULT_PRODUCT_WORKFLOWS"] == "modify_note"
    assert "CANARY-1" not in answer.text
    password = database.engine.url.password
    assert password is None or str(password) not in values["ORCHESTRATOR_DATABASE_URL"]


async def test_there_are_no_caches_and_no_translations(database: Database) -> None:
    async with open_api(database) as api:
        caches = await api.get("/api/settings/cache-names")
        dutch = await api.get("/api/translations/nl-NL")
        wrong = await api.get("/api/translations/..%2Fetc")
    assert (caches.status_code, caches.json()) == (200, {})
    assert (dutch.status_code, dutch.json()) == (200, {"forms": {"fields": {}}})
    assert wrong.status_code in {404, 422}
