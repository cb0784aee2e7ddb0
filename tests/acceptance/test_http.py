"""The API as a program beside coordinator and consumer: the same operations as by message and on the command line. B2."""

from __future__ import annotations

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

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
    (order,) = engine.journal(process_id, "order")
    assert order["route"] == f"/api{path.rpartition('/')[0]}/"
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


def waiting_callback(engine: Installation, api: Api) -> tuple[UUID, str]:
    """Return a process that waits for its callback, and the callback's path."""
    process_id = start(api, "calls_out")
    path = f"/processes/{process_id}/callback/{engine.token(process_id)}"
    engine.open_gate(f"order-{process_id}")
    engine.wait_for(process_id, "awaiting_callback")
    return process_id, path


def test_two_answers_at_once_are_one_and_a_token_is_worthless_after_an_abort(engine: Installation, api: Api) -> None:
    """B36: 200 for one of them, 409 for the others; what is refused changes nothing."""
    process_id, path = waiting_callback(engine, api)
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda number: api.call("POST", path, json={"ok": True, "by": number}), range(8)))
    assert sorted(one.status_code for one in answers) == [200] + [409] * 7
    engine.wait_for(process_id, "completed")
    (accepted,) = [number for number, one in enumerate(answers) if one.status_code == 200]
    assert engine.state(process_id)["callback_result"]["by"] == accepted
    assert api.call("POST", f"{path}/progress", json={}).status_code == 409
    aborted, path = waiting_callback(engine, api)
    assert api.call("PUT", f"/processes/{aborted}/abort").status_code == 204
    assert api.call("POST", path, json={"ok": True}).status_code == 409
    assert engine.status(aborted) == "aborted"


def test_a_callback_takes_json_under_any_name_and_refuses_everything_else(engine: Installation, api: Api) -> None:
    """Scripts and devices send what they like; the process waits until it gets an object."""
    process_id, path = waiting_callback(engine, api)
    wrong = [b"", b"ok=true", b"[1]", b'"done"', b"\xef\xbb\xbf{}", '{"name": "Zoë"}'.encode("latin-1"), b'{"a": NaN}']
    wrong += [b'{"a": "\\ud800"}', b'{"a": "\\u0000"}', b'{"a\\u0000": 1}', b'{"a":' * 1_000]
    wrong += [b'{"a":' + b"[" * depth + b"]" * depth + b"}" for depth in (120, 100_000)]
    for body in wrong:
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
            answer = api.call("POST", path, content=body, headers={"content-type": kind})
            assert answer.status_code == 400, (body, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
    assert engine.status(process_id) == "awaiting_callback"
    unknown, forged = (
        api.call("POST", f"/processes/{one}/callback/{'x' * 43}", json={})
        for one in (process_id, "00000000-0000-4000-8000-000000000000")
    )
    assert unknown.status_code == forged.status_code == 404
    assert unknown.json() == forged.json(), "whether the process exists is not said"
    assert api.call("POST", path, content='{"ok": true, "name": "Zoë"}'.encode()).status_code == 200
    engine.wait_for(process_id, "completed")
    assert engine.state(process_id)["callback_result"] == {"ok": True, "name": "Zoë"}


def test_the_token_of_a_callback_is_in_no_line_of_any_log(engine: Installation, api: Api) -> None:
    """Whatever becomes of the request: the log of uvicorn, of the framework and of the program are looked through at the end."""
    process_id = start(api, "calls_out")
    token = engine.token(process_id)
    path = f"/processes/{process_id}/callback/{token}"
    for method, wrong, body in (
        ("GET", path, b""),
        ("POST", f"{path}/", b"{}"),
        ("POST", f"{path}%0a", b"{}"),
        ("POST", f"{path}%2F{token}", b"{}"),
        ("POST", f"{path}/progress/", b"{}"),
        ("POST", path, b"{"),
        ("POST", path, b" " * 2_000_000),
        ("POST", f"/processes/no-id/callback/{token}", b"{}"),
    ):
        answer = api.call(method, wrong, content=body)
        assert 400 <= answer.status_code < 500
        assert token not in answer.text
    with pytest.raises(InvalidStatus):
        connect(f"{api.url.replace('http', 'ws')}/api{path}")
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2]))) as broken_off:
        broken_off.sendall(f"POST /api{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
    for shown in (f"/processes/{process_id}", "/processes", f"/processes/{process_id}/explain"):
        answer = api.call("GET", shown)
        assert answer.status_code == 200, answer.text
        assert token not in answer.text
    assert api.call("POST", path, json={}).status_code == 200
    assert token not in api.call("GET", f"/processes/{process_id}").text
    assert token not in engine.logs()
    engine.open_gate(f"order-{process_id}")
    engine.wait_for(process_id, "failed")


def test_what_a_form_refuses_is_in_no_answer_and_no_log(engine: Installation, api: Api) -> None:
    """Whoever sends a password in the wrong field finds it nowhere, although the programs log everything they can."""
    process_id = start(api, "calls_out")
    for path, body in (
        ("/processes/one_step", [{"password": "CANARY-7"}]),
        ("/processes/one_step", {"password": "CANARY-7"}),
        (f"/processes/{process_id}/callback/{engine.token(process_id)}", ["CANARY-7"]),
    ):
        answer = api.call("POST", path, json=body)
        assert answer.status_code in {400, 422}, answer.text
        assert "CANARY-7" not in answer.text
    assert "CANARY-7" not in engine.logs()
    assert api.call("PUT", f"/processes/{process_id}/abort").status_code == 204


def test_two_workers_serve_one_address_and_end_together(installations: MakeInstallation) -> None:
    """A worker that is killed is replaced; SIGTERM ends all of them with success."""
    engine = installations()
    api = engine.api("--workers", "2")
    for program in (engine.coordinator(), engine.consumer(ORCHESTRATOR_PUBLIC_URL=api.url)):
        program.ready()
    until(lambda: api.output().count("API started") == 2, "both workers serve")
    finished = [start(api, "one_step") for _ in range(4)]
    for process_id in finished:
        engine.wait_for(process_id, "completed")
    called = start(api, "calls_out")
    engine.open_gate(f"order-{called}")
    token = engine.token(called)
    (order,) = engine.journal(called, "order")
    assert httpx.post(f"{order['route']}{token}", json={"ok": True}, timeout=60).status_code == 200
    engine.wait_for(called, "completed")
    assert api.stop() == 0
    until(lambda: api.output().count("API stopped") == 2, "both workers have ended")


@pytest.mark.parametrize(
    ("workers", "first_sign"), [("1", "ORCHESTRATOR_AUTH is not set"), ("2", "API worker started")]
)
def test_sigterm_during_the_start_ends_it(engine: Installation, workers: str, first_sign: str) -> None:
    program = engine.run("api", "api", "--port", "0", "--workers", workers)
    until(lambda: first_sign in program.output(), "it is starting")
    program.signal(signal.SIGTERM)
    assert program.exit_code() == 0
    assert "Traceback" not in program.output()


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
    assert "choose another with --host or --port" in refused.stderr
    assert "Traceback" not in refused.stderr
