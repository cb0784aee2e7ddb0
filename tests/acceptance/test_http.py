"""The API as a program beside coordinator and consumer: the same operations as by message and on the command line. B2."""

from __future__ import annotations

import signal
from uuid import UUID

import pytest

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.programs import Api
from tests.acceptance.waiting import until


@pytest.fixture(scope="module")
def api(engine: Installation) -> Api:
    return engine.api()


def start(api: Api, workflow: str, *pages: object) -> UUID:
    answer = api.call("POST", f"/processes/{workflow}", json=list(pages))
    assert answer.status_code == 201, answer.text
    return UUID(answer.json()["id"])


def test_a_process_that_waits_for_a_callback_is_completed_by_http(engine: Installation, api: Api) -> None:
    """B2, B36: each answer of an external system has its status; what comes early is kept."""
    process_id = start(api, "calls_out")
    path = f"/processes/{process_id}/callback/{engine.token(process_id)}"
    engine.open_gate(f"order-{process_id}")
    engine.wait_for(process_id, "awaiting_callback")
    assert api.call("POST", f"{path}/progress", json={"percent": 40}).status_code == 200
    assert api.call("POST", f"/processes/{process_id}/callback/forged", json={}).status_code == 404
    other = start(api, "calls_out")
    borrowed = f"/processes/{other}/callback/{path.rpartition('/')[2]}"
    assert api.call("POST", borrowed, json={}).status_code == 404, "the token is another process's"
    assert api.call("POST", path, content=b"[1]").status_code == 400
    answer = api.call("POST", path, content=b'{"ok": true, "light": -17.5}', headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
    engine.wait_for(process_id, "completed")
    assert engine.state(process_id)["callback_result"] == {"ok": True, "light": -17.5}
    assert api.call("POST", path, json={}).status_code == 409
    early = api.call("POST", f"/processes/{other}/callback/{engine.token(other)}/failed", json={"error": "no light"})
    assert early.json() == {"status": "kept until the step has started waiting"}
    engine.open_gate(f"order-{other}")
    engine.wait_for(other, "failed")


def test_the_token_of_a_callback_is_in_no_line_of_any_log(engine: Installation, api: Api) -> None:
    """Whatever becomes of the request: the log of uvicorn, of the framework and of the program are looked through at the end."""
    process_id = start(api, "calls_out")
    token = engine.token(process_id)
    path = f"/processes/{process_id}/callback/{token}"
    for method, wrong, body in (
        ("GET", path, b""),
        ("POST", f"{path}/", b"{}"),
        ("POST", f"{path}%0a", b"{}"),
        ("POST", path, b"{"),
        ("POST", path, b" " * 2_000_000),
        ("POST", f"/processes/no-id/callback/{token}", b"{}"),
    ):
        answer = api.call(method, wrong, content=body)
        assert 400 <= answer.status_code < 500
        assert token not in answer.text
    assert api.call("POST", path, json={}).status_code == 200
    assert token not in engine.logs()


def test_two_workers_serve_one_address_and_end_together(installations: MakeInstallation) -> None:
    """A worker that is killed is replaced; SIGTERM ends all of them with success."""
    engine = installations()
    for program in (engine.coordinator(), engine.consumer()):
        program.ready()
    api = engine.api("--workers", "2")
    until(lambda: api.output().count("API started") == 2, "both workers serve")
    finished = [start(api, "one_step") for _ in range(4)]
    for process_id in finished:
        engine.wait_for(process_id, "completed")
    assert api.stop() == 0
    until(lambda: api.output().count("API stopped") == 2, "both workers have ended")


def test_what_is_started_while_the_broker_is_away_runs_once_it_is_back(installations: MakeInstallation) -> None:
    """The start is committed and answered; the reconciler publishes it."""
    engine = installations()
    api = engine.api(ORCHESTRATOR_AMQP_URL="amqp://guest:guest@127.0.0.1:1/")
    ready = api.call("GET", "/health/ready").json()
    assert (ready["status"], ready["broker"]) == ("ready", "away")
    process_id = start(api, "one_step")
    assert engine.status(process_id) == "running"
    for program in (engine.coordinator(), engine.consumer()):
        program.ready()
    engine.wait_for(process_id, "completed")
    api.signal(signal.SIGINT)
    assert api.exit_code() == 0


def test_an_address_that_is_taken_is_refused_in_one_line(engine: Installation, api: Api) -> None:
    port = api.url.rpartition(":")[2]
    refused = engine.command("api", "--port", port, exit_code=1)
    assert f"the API cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert "Traceback" not in refused.stderr
