"""`orchestrator watch --url`: the same as over the database, for people who can only reach the API."""

from __future__ import annotations

import json
import subprocess
import threading

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.programs import Api

NOWHERE = "amqp://nobody@127.0.0.1:1/none"


def watch_remotely(
    engine: Installation, api: Api, process_id: object, *more: str, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command where neither PostgreSQL nor RabbitMQ can be reached."""
    return engine.command(
        "watch",
        str(process_id),
        "--url",
        api.url,
        *more,
        exit_code=code,
        ORCHESTRATOR_DATABASE_URL=NOWHERE.replace("amqp", "postgresql"),
        ORCHESTRATOR_AMQP_URL=NOWHERE,
        **variables,
    )


@pytest.fixture(scope="module")
def api(engine: Installation) -> Api:
    return engine.api()


@pytest.mark.parametrize(
    ("workflow", "status", "code"), [("one_step", "completed", 0), ("asks", "suspended", 3), ("mended", "failed", 1)]
)
def test_what_it_shows_is_what_the_database_has(
    engine: Installation, api: Api, workflow: str, status: str, code: int
) -> None:
    process_id = str(engine.finish(workflow, status=status))
    stored = engine.command("watch", process_id, exit_code=code)
    remote = watch_remotely(engine, api, process_id, code=code)
    assert remote.stdout == stored.stdout
    # Who makes the form itself logs that.
    assert remote.stderr.splitlines() == [line for line in stored.stderr.splitlines() if "[debug" not in line]
    stored = engine.command("watch", process_id, "--json", exit_code=code)
    remote = watch_remotely(engine, api, process_id[:8], "--json", code=code)
    assert json.loads(remote.stdout) == json.loads(stored.stdout)


def test_it_follows_a_process_to_its_end(engine: Installation, api: Api) -> None:
    process_id = engine.start("calls_out")
    seen: list[str] = []

    def watch() -> None:
        seen.append(watch_remotely(engine, api, process_id).stdout)

    watching = threading.Thread(target=watch)
    watching.start()
    engine.open_gate(f"order-{process_id}")
    engine.wait_for(process_id, "awaiting_callback")
    engine.answer(engine.token(process_id), {"ok": True})
    watching.join(60)
    assert len(seen) == 1
    lines = [line.split()[0] for line in seen[0].splitlines() if line.strip()[:1].isdigit()]
    assert lines == [str(entry.sequence) for entry in engine.log(process_id)]


def test_what_cannot_be_followed_is_refused_in_one_line(engine: Installation, api: Api) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    refused = watch_remotely(engine, api, unknown, code=1)
    assert unknown in refused.stderr
    refused = watch_remotely(engine, api, unknown[:8], code=1)
    assert "there is no process 00000000" in refused.stderr
    refused = watch_remotely(engine, api, unknown[:7], code=1)
    assert "too short" in refused.stderr
    refused = engine.command("watch", unknown, "--url", "localhost:8000", exit_code=2)
    assert "http://" in refused.stderr
    refused = engine.command("watch", unknown, "--url", "http://127.0.0.1:1", exit_code=1)
    assert "cannot be reached" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_it_sends_its_key_and_says_when_that_opens_nothing(engine: Installation) -> None:
    api = engine.api(ORCHESTRATOR_AUTH="api-keys")
    secret = json.loads(engine.command("api-keys", "create", "watcher", "--role", "read", "--json").stdout)["key"]
    process_id = str(engine.finish("one_step"))
    refused = watch_remotely(engine, api, process_id, code=1)
    assert "API key" in refused.stderr
    watch_remotely(engine, api, process_id, "--api-key", secret)
    watch_remotely(engine, api, process_id, ORCHESTRATOR_API_KEY=secret)
    assert api.stop() == 0
    assert secret not in engine.logs()
