"""Keys of the state that an author has marked as secret: steps get the values, and nobody is shown them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator import registry
from orchestrator.db.processes.logs import read_entries
from orchestrator.db.processes.queries import read_log, read_logs, read_past, read_state
from orchestrator.db.processes.rows import load_process
from orchestrator.db.session import Database
from orchestrator.errors import DefinitionError
from orchestrator.services.start import StartRequest, start
from orchestrator.workflow import StepList, init, inputstep, step, workflow
from tests.integration import api_flows
from tests.integration.api_client import make_context, open_api
from tests.integration.ui_client import open_ui

SECRET = "hunter2-9f1c"


def form() -> Any:
    yield api_flows.Who
    return {"password": SECRET, "login": "ana"}


@step("Log in")
async def log_in(password: str) -> None: ...


@inputstep("Wait", assignee="NOC")
def wait(password: str) -> Any:
    assert password == SECRET, "forms get the value"
    yield api_flows.Who
    return {}


@workflow("Uses a password", initial_input_form=form, secret_keys=("password",))
def guarded() -> StepList:
    return init >> wait >> log_in


async def test_a_secret_value_is_read_by_steps_and_shown_nowhere(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api_flows.register(database, monkeypatch, [guarded, api_flows.greeting], __name__)
    limits = make_context(database).limits
    async with database.transaction() as session:
        process_id = (await start(session, StartRequest("guarded", [{"name": "ana"}], "ana"), limits)).process_id
    assert registry.list_secret_keys() == {"guarded": ("password",)}
    async with database.transaction() as session:
        process = await load_process(session, process_id)
        assert process.state["password"] == SECRET, "what runs the steps has it"
        assert SECRET in str(await read_past(session, process_id)), "so that a rewind restores it"
        shown = [
            await read_state(session, process_id),
            await read_log(session, process_id),
            await read_logs(session, [process_id]),
            await read_entries(session, [process_id]),
        ]
        assert SECRET not in str(shown)
        assert all("(hidden)" in str(one) and "login" in str(one) for one in shown)
    async with open_api(database) as client:
        document = (await client.get(f"/api/processes/{process_id}")).json()
    assert document["current_state"]["password"] == "(hidden)"
    assert document["current_state"]["login"] == "ana"
    assert SECRET not in json.dumps(document)
    async with open_ui(database) as browser:
        first = document["steps"][0]["sequence"]
        for path in ("", "/state", f"/entries/{first}", "/news?after=-1"):
            page = await browser.get(f"/ui/processes/{process_id}{path}")
            assert (page.status_code, SECRET in page.text) == (200, False)


def test_secret_keys_are_names() -> None:
    for wrong in ("password", 5, (1,)):
        with pytest.raises(DefinitionError, match="secret_keys of the workflow"):
            workflow("Wrong", secret_keys=wrong)(guarded_steps)  # type: ignore[arg-type]


def guarded_steps() -> StepList:
    return init >> log_in
