"""What the page of a process that waits for a callback says, and how its operator answers in place of the external system."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from orchestrator.authorization import Role
from orchestrator.db.session import Database
from orchestrator.workflow import StepList, Workflow, callback_step, step
from tests.integration.engine_bench import Bench, bench_of
from tests.integration.ui_client import Browser, make_key, open_ui, text_of


@step("Send")
def send(callback_token: str) -> None:
    """Give the job away."""


@step("Check")
def check(callback_result: dict[str, Any]) -> None:
    """Take every answer."""


limited = Workflow("limited", "for tests", StepList((callback_step("Order", send, check, timeout=timedelta(hours=1)),)))
endless = Workflow("endless", "for tests", StepList((callback_step("Order", send, check),)))


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, limited, endless) as made:
        yield made


@pytest.fixture
async def browser(database: Database) -> AsyncIterator[Browser]:
    async with open_ui(database) as found:
        yield found


async def park(bench: Bench, workflow: str) -> tuple[UUID, str]:
    """Bring a process to its callback; return the token that its job came with."""
    process_id = await bench.start(workflow)
    token = await bench.database.pool.fetchval("SELECT token FROM callbacks WHERE process_id = $1", process_id)
    await bench.run_step(process_id, await bench.runner(), "awaiting_callback")
    return process_id, str(token)


async def test_the_page_says_what_is_awaited_until_when_and_how_it_may_be_answered(
    bench: Bench, browser: Browser
) -> None:
    process_id, token = await park(bench, "limited")
    page = await browser.get(f"/ui/processes/{process_id}")
    text = text_of(page)
    assert "of Order, since" in text
    assert ", until" in text
    assert "Answer the callback…" in text
    assert token not in page.text
    unlimited, _ = await park(bench, "endless")
    assert "without a deadline" in text_of(await browser.get(f"/ui/processes/{unlimited}"))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"outcome": "completed", "answer": '{"ok": true}'}, "running"),
        ({"outcome": "completed"}, "running"),
        ({"outcome": "failed", "answer": '{"error": "no such port"}'}, "failed"),
    ],
    ids=["completed", "completed without a word", "failed"],
)
async def test_an_operator_who_has_the_token_answers_for_the_external_system(
    bench: Bench, browser: Browser, sent: dict[str, str], status: str
) -> None:
    process_id, token = await park(bench, "limited")
    path = f"/ui/processes/{process_id}"
    done = await browser.post(f"{path}/callback", {"token": token, **sent})
    assert (done.status_code, done.headers["location"]) == (303, path)
    assert (await bench.row(process_id))["status"] == status
    assert "answered by anonymous on the page" in text_of(await browser.get(path)), "who has answered"
    assert "Answer the callback…" not in text_of(await browser.get(path))
    again = await browser.post(f"{path}/callback", {"token": token, **sent})
    assert (again.status_code, "already answered" in text_of(again)) == (409, True)


async def test_an_answer_that_cannot_be_taken_changes_nothing(bench: Bench, browser: Browser) -> None:
    process_id, token = await park(bench, "limited")
    other, foreign = await park(bench, "endless")
    path = f"/ui/processes/{process_id}/callback"
    deep = "[" * 120 + "]" * 120
    for sent, code, words in (
        ({"token": "guessed", "outcome": "completed"}, 404, "no such callback token"),
        ({"token": foreign, "outcome": "completed"}, 404, "no such callback token"),
        ({"token": token}, 400, "choose whether the job was completed or has failed"),
        ({"token": token, "outcome": "completed", "answer": "fine"}, 400, "not JSON"),
        ({"token": token, "outcome": "completed", "answer": "[1]"}, 400, "must be a JSON object"),
        ({"token": token, "outcome": "completed", "answer": f'{{"a": {deep}}}'}, 400, "cannot be stored"),
    ):
        refused = await browser.post(path, sent)
        assert (refused.status_code, words in text_of(refused)) == (code, True), (sent, text_of(refused))
        assert sent["token"] not in refused.text
    assert {(await bench.row(one))["status"] for one in (process_id, other)} == {"awaiting_callback"}


async def test_an_answer_before_the_process_waits_is_refused_as_nothing_would_keep_who_gave_it(
    bench: Bench, browser: Browser
) -> None:
    process_id = await bench.start("limited")
    token = await bench.database.pool.fetchval("SELECT token FROM callbacks WHERE process_id = $1", process_id)
    sent = {"token": str(token), "outcome": "completed"}
    refused = await browser.post(f"/ui/processes/{process_id}/callback", sent)
    assert (refused.status_code, "does not wait for its callback yet" in text_of(refused)) == (409, True)
    await bench.run_step(process_id, await bench.runner(), "awaiting_callback")
    done = await browser.post(f"/ui/processes/{process_id}/callback", sent)
    assert done.status_code == 303


async def test_who_answers_is_named_as_he_has_signed_in(bench: Bench, database: Database) -> None:
    process_id, token = await park(bench, "limited")
    path = f"/ui/processes/{process_id}"
    async with open_ui(database, auth="api-keys") as browser:
        await browser.sign_in(await make_key(database, Role.OPERATE))
        sent = {"token": token, "outcome": "failed", "answer": '{"error": "no such port"}'}
        assert (await browser.post(f"{path}/callback", sent)).status_code == 303
        name = await database.pool.fetchval("SELECT name FROM api_keys")
        assert f"answered by {name} on the page" in text_of(await browser.get(path))


async def test_who_may_not_operate_cannot_answer(bench: Bench, database: Database) -> None:
    process_id, token = await park(bench, "limited")
    path = f"/ui/processes/{process_id}"
    async with open_ui(database, auth="api-keys") as browser:
        await browser.sign_in(await make_key(database, Role.START))
        assert "Answer the callback…" not in text_of(await browser.get(path))
        refused = await browser.post(f"{path}/callback", {"token": token, "outcome": "completed"})
        assert refused.status_code == 403
    assert (await bench.row(process_id))["status"] == "awaiting_callback"
