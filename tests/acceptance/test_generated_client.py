"""A client that a public generator makes of the OpenAPI document drives whole stories, of a process and of a schedule."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.programs import Api
from tests.acceptance.waiting import until

NAME = "generated_client"
GENERATOR = Path(sys.executable).with_name("openapi-python-client")


class Generated:
    """The generated package, with a client of one API program."""

    def __init__(self, api: Api) -> None:
        self.client = import_module(f"{NAME}.client").Client(base_url=api.url)

    def call(self, operation: str, *arguments: Any, **named: Any) -> tuple[int, Any]:
        """Call an operation by its name; return the status and the parsed answer."""
        tag, _, name = operation.partition(".")
        module: ModuleType = import_module(f"{NAME}.api.{tag}.{name}")
        answer = module.sync_detailed(*arguments, client=self.client, **named)
        return int(answer.status_code), answer.parsed

    def model(self, kind: str, /, **values: Any) -> Any:
        """Return an object of a generated class."""
        return getattr(import_module(f"{NAME}.models"), kind).from_dict(values)


@pytest.fixture
def generated(engine: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Generated]:
    api = engine.api()
    document = tmp_path / "openapi.json"
    document.write_bytes(api.call("GET", "/openapi.json").content)
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    subprocess.run(
        [
            GENERATOR,
            "generate",
            *("--path", document),
            *("--config", tmp_path / "config.yml"),
            *("--output-path", tmp_path / NAME),
            *("--meta", "none"),
            "--fail-on-warning",
        ],
        check=True,
        timeout=120,
    )
    monkeypatch.syspath_prepend(tmp_path)
    made = Generated(api)
    yield made
    made.client.get_httpx_client().close()
    for name in [one for one in sys.modules if one.partition(".")[0] == NAME]:
        del sys.modules[name]


def test_a_generated_client_drives_a_process_and_a_schedule_to_their_ends(
    engine: Installation, generated: Generated
) -> None:
    """One test, because a client takes long to make."""
    drive_process(engine, generated)
    drive_schedule(generated)


def drive_process(engine: Installation, generated: Generated) -> None:
    """Start a workflow, give it input, and complete its callback."""
    page = generated.model("StartProcessBodyItem", name="ams-1")
    status, incomplete = generated.call("processes.start_process", "asks_and_calls_out", body=[])
    assert status == 510
    assert "name" in incomplete.form.to_dict()["properties"]
    status, refused = generated.call("processes.start_process", "there_is_none", body=[page])
    assert (status, refused.status) == (404, 404)

    status, started = generated.call("processes.start_process", "asks_and_calls_out", body=[page])
    assert status == 201
    process_id: UUID = started.id

    def stands_at(kind: str) -> None:
        until(lambda: explain().kind.value == kind, f"the process is explained by {kind!r}")

    def explain() -> Any:
        status, found = generated.call("processes.explain_process", process_id)
        assert status == 200
        return found

    stands_at("input")
    amount = generated.model("ResumeProcessBodyType0Item", amount=3)
    assert generated.call("processes.resume_process", process_id, body=[amount]) == (204, None)
    token = engine.token(process_id)
    engine.open_gate(f"order-{process_id}")
    stands_at("callback")

    progress = generated.model("ReportCallbackProgressBody", percent=60)
    assert generated.call("callbacks.report_callback_progress", process_id, token, body=progress)[0] == 200
    assert explain().summary.endswith("1 progress message")
    answer = generated.model("CompleteCallbackBody", ok=True)
    assert generated.call("callbacks.complete_callback", process_id, token, body=answer)[0] == 200
    stands_at("final")
    assert explain().summary.startswith("completed since ")
    status, shown = generated.call("processes.show_process", process_id)
    assert (status, shown.last_status.value, shown.current_state.to_dict()["amount"]) == (200, "completed", 3)
    assert [one.name for one in shown.steps if one.status == "success"][-1] == "Check"
    assert generated.call("processes.abort_process", process_id)[0] == 409


def drive_schedule(generated: Generated) -> None:
    """Make a schedule, see it run, pause it, change it and remove it."""
    body = {"name": "often", "workflow_name": "task_one", "trigger": "interval", "trigger_kwargs": {"seconds": 1}}
    status, refused = generated.call(
        "schedules.create_schedule", body=generated.model("ScheduleCreation", **body, zone="Europe/Kyiw")
    )
    assert (status, refused.validation_errors[0].loc) == (422, ["zone"])
    status, made = generated.call("schedules.create_schedule", body=generated.model("ScheduleCreation", **body))
    assert (status, len(made.next_)) == (201, 5)
    schedule_id: UUID = made.id

    def show() -> Any:
        status, found = generated.call("schedules.show_schedule", schedule_id)
        assert status == 200
        return found

    until(lambda: show().slots, "a slot has started")
    slot = show().slots[0]
    assert slot.result.value == "started"
    _, process = generated.call("processes.show_process", slot.process_id)
    assert (process.workflow_name, process.created_by) == ("task_one", "schedule:often")
    until(lambda: is_completed(generated, slot.process_id), "its process is completed")

    status, paused = generated.call("schedules.pause_schedule", schedule_id)
    assert (status, paused.state.value, paused.next_) == (200, "disabled", [])
    change = generated.model("ScheduleChange", trigger="cron", trigger_kwargs={"hour": "2"}, zone="Europe/Amsterdam")
    status, changed = generated.call("schedules.change_schedule", schedule_id, body=change)
    assert (status, changed.trigger, changed.zone) == (200, "cron", "Europe/Amsterdam")
    _, listed = generated.call("schedules.list_schedules")
    assert "often" in [one.name for one in listed]
    removal = generated.model("ScheduleRemoval", scheduled_type="delete", schedule_id=str(schedule_id))
    assert generated.call("schedules.delete_schedule", body=removal)[0] == 200
    assert generated.call("schedules.show_schedule", schedule_id)[0] == 404


def is_completed(generated: Generated, process_id: UUID) -> bool:
    """Return whether a process is completed."""
    _, shown = generated.call("processes.show_process", process_id)
    return bool(shown.last_status.value == "completed")
