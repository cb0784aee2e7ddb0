"""The command line as people use it: real programs as subprocesses, on real servers. B1, B2, B7, B11, B34."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from orchestrator.db.session import Database
from tests.forking import ORCHESTRATOR, Program
from tests.integration.cli_servers import FLOWS, PATIENCE, Cli, project, register_flows
from tests.shipped import SHIPPED

DEFAULT_TIMEOUT = timedelta(minutes=15)
NO_DATABASE, NO_BROKER = "postgresql://u:hidden@127.0.0.1:1/x", "amqp://u:hidden@127.0.0.1:1/x"


@pytest.fixture
async def cli(database: Database, database_url: str, amqp_url: str, tmp_path: Path) -> Cli:
    await register_flows(database)
    return project(tmp_path, database_url, amqp_url)


@pytest.fixture
def serverless(tmp_path: Path) -> Cli:
    """A project whose servers do not run."""
    return project(tmp_path, NO_DATABASE, NO_BROKER)


@pytest.fixture
def dev(cli: Cli) -> Iterator[Program]:
    """A coordinator and a consumer in one process."""
    with cli.program("dev") as program:
        cli.until(cli.is_reading)
        yield program


def test_a_workflow_runs_to_its_end_step_by_step(cli: Cli, dev: object) -> None:
    """B2."""
    shown = cli("start", "greet", "-i", '{"name": "Bo"}', "-i", '{"tone": "kind"}', "--user", "alice", "--wait").stdout
    assert re.search(r"Say hello  success .*greeting=\"hello Bo\"", shown)
    assert shown.rstrip().splitlines()[-1].endswith("completed  by alice")


def test_dev_serves_the_api_as_well(cli: Cli, dev: object) -> None:
    """On port 8000, or on a free one when that is taken."""
    log = cli.folder / "dev.log"
    serves = re.compile(r"API started.*?(http://127\.0\.0\.1:[0-9]+).*\n")
    cli.until(lambda: serves.search(log.read_text()) is not None)
    served = serves.search(log.read_text())
    assert served is not None
    answer = httpx.get(f"{served[1]}/api/health/ready", timeout=60)
    assert answer.json()["status"] == "ready"


def test_the_audit_trail_shows_who_did_what_with_which_result(cli: Cli, dev: object) -> None:
    """B1, B7, B11: every attempt stays; a retry starts from the last success; a patch is an entry of its own."""
    failed = cli("start", "stumble", "--user", "alice", "--wait", code=1)
    assert "RuntimeError: tripped over [bold]" in failed.stderr
    assert "\x1b" not in failed.stdout + failed.stderr
    process = cli.json("list", "--status", "failed")[0]
    short = process["process_id"][:8]
    cli("retry", short, "--user", "bob", "--wait", code=1)
    cli("patch", short, "--set", "mended=true", "--remove", "noted", "--reason", "typo", "--user", "carol")
    assert cli.json("retry", short, "--user", "dave", "--wait")["status"] == "completed"

    shown = cli.json("show", short, "--state")
    assert (shown["started_by"], shown["status"], shown["state"]) == (
        "alice",
        "completed",
        {"mended": True, "passed": True},
    )
    log = shown["log"]
    assert [entry["sequence"] for entry in log] == list(range(1, len(log) + 1))
    tried = [(e["try"], e["status"], e["author"]) for e in log if e["name"] == "Stumble"]
    assert tried == [(1, "failed", "alice"), (2, "failed", "bob"), (3, "success", "dave")]
    patched = next(e for e in log if e["name"] == "patched")
    assert (patched["author"], patched["note"], patched["delta"]) == ("carol", "typo", {"mended": True})
    before = cli.json("show", short, "--at", str(patched["sequence"] - 1))
    assert before["state"] == {"noted": 1}

    text = cli("show", short, "--traceback").stdout
    assert "\x1b" not in text
    for expected in ("alice", "bob", "carol", "(typo)", "mended=true -noted", 'raise RuntimeError("tripped'):
        assert expected in text


def test_a_failed_step_can_be_skipped_with_a_reason(cli: Cli, dev: object) -> None:
    """B11."""
    cli("start", "stumble", "--wait", code=1)
    short = cli.json("list")[0]["process_id"][:8]
    assert "skipped  by" in cli("skip", short, "--reason", "done by hand", "--wait").stdout
    assert cli.json("show", short)["status"] == "completed"


def test_an_input_step_shows_its_form_and_takes_its_input(cli: Cli, dev: object) -> None:
    """B34: wrong input is refused and the process is still suspended."""
    shown = cli("start", "ask", "--wait", code=3).stdout
    assert "needs input at 'Approve'" in shown
    assert re.search(r"approved +boolean +required", shown)
    short = cli.json("list")[0]["process_id"][:8]
    seen = cli.json("show", short)["sequence"]
    assert f"orchestrator resume {short} --seen {seen} --input" in shown
    asked = cli("resume", short, code=1).stdout
    assert f"orchestrator resume {short} --seen {seen} --input '{{\"approved\": …}}'" in asked
    assert cli.json("resume", short, code=1)["reasons"] == [{"key": "form.incomplete", "sequence": seen}]
    cli("resume", short, "--input", '{"approved": "perhaps"}', code=1)
    assert cli.json("show", short)["form"]["properties"].keys() == {"approved"}
    (cli.folder / "page.json").write_text('{"approved": true}')
    cli("resume", short, "--input", "@page.json", "--user", "eve", "--wait")
    entry = next(e for e in cli.json("show", short)["log"] if e["delta"])
    assert (entry["delta"], entry["author"]) == ({"approved": True}, "eve")


def test_what_is_done_to_a_process_is_done_to_what_was_seen(cli: Cli, dev: object) -> None:
    """B4: somebody else was there in between; whoever has seen the process before that is refused."""
    cli("start", "stumble", "--wait", code=1)
    short = cli.json("list")[0]["process_id"][:8]
    seen = str(cli.json("show", short)["sequence"])
    changed = cli.json("patch", short, "--set", "a=1", "--reason", "first", "--seen", seen)
    for command in (
        ("patch", "--set", "a=2", "--reason", "late"),
        ("skip", "--reason", "late"),
        ("retry",),
        ("resume",),
    ):
        refused = cli.json(command[0], short, *command[1:], "--seen", seen, code=1)
        assert refused["error"] == "ConflictError", command
        assert refused["reasons"] == [{"key": "conflict", "seen": int(seen), "sequence": changed["sequence"]}]
    cli("skip", short, "--reason", "on time", "--seen", str(changed["sequence"]), "--wait")


def test_whoever_waits_for_a_callback_is_notified_when_time_is_up_and_can_abort(cli: Cli, dev: object) -> None:
    waited = cli("start", "call", "--wait", "--timeout", "0.5", code=4)
    assert "still" in waited.stderr
    short = cli.json("list")[0]["process_id"][:8]
    cli.until(lambda: cli.json("show", short)["status"] == "awaiting_callback")
    shown = cli.json("show", short)
    assert shown["callback"]["deadline"] is not None
    assert "token" not in json.dumps(shown)
    cli("abort", short, "--reason", "too late")
    assert "(too late)" in cli("watch", short, code=1).stdout
    cli("abort", short, code=1)


def test_an_unfinished_form_starts_nothing_and_shows_the_next_page(cli: Cli) -> None:
    first = cli("start", "greet", code=1)
    assert re.search(r"name +string +required", first.stdout)
    second = cli("start", "greet", "--input", '{"name": "Bo"}', code=1)
    assert '"kind" | "gruff"' in second.stdout
    assert """orchestrator start greet --input '{"name": "Bo"}' --input '{"tone": …}'""" in second.stdout
    assert cli.json("start", "greet", code=1)["form"]["required"] == ["name"]
    assert cli.json("list") == []


def test_a_repeated_key_gives_the_same_process_and_another_request_under_it_is_refused(cli: Cli) -> None:
    first = cli.json("start", "ask", "--key", "order-1")
    assert first["created"]
    assert cli.json("start", "ask", "--key", "order-1") == first | {"created": False}
    assert "already used" in cli("start", "sleep", "--key", "order-1", code=1).stderr


def test_processes_are_listed_newest_first_by_status_workflow_and_kind(cli: Cli) -> None:
    first, second = cli.start("ask"), cli.start("sleep")
    cli("abort", first)
    assert [one["process_id"] for one in cli.json("list")] == [second, first]
    assert [one["process_id"] for one in cli.json("list", "--status", "aborted")] == [first]
    assert [one["process_id"] for one in cli.json("list", "--workflow", "sleep", "--no-task")] == [second]
    assert cli.json("list", "--task") == []
    assert [one["process_id"] for one in cli.json("list", "--limit", "1")] == [second]
    assert second in cli("list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["abort", "0" * 32, "--reason", b"caf\xe9"], 2, "'caf\\udce9' is no text"),
        (["show", b"caf\xe9"], 1, "'caf\\udce9' is not the id of a process"),
        (["start", "greet", "-i", '{"name": "\\u0000"}', "-i", '{"tone": "kind"}'], 1, "null character"),
    ],
    ids=["reason", "id", "page"],
)
def test_what_is_no_text_is_refused_with_a_reason(cli: Cli, arguments: list[str | bytes], code: int, told: str) -> None:
    """A shell hands over any bytes."""
    done = cli(*arguments, code=code)

    assert told in " ".join(done.stderr.replace("│", " ").split())


def test_a_process_that_cannot_be_meant_is_refused_with_a_reason(cli: Cli) -> None:
    for written, told in (("1234567", "too short"), ("not-an-id", "not the id"), ("00000000", "there is no process")):
        done = cli("show", written, code=1)
        assert told in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("start",),
        ("start", "ask", "--input", "[]"),
        ("list", "--status", "nonsense"),
        ("patch", "12345678", "--reason", "x"),
        ("patch", "12345678", "--set", "a=1"),
        ("consumer", "--concurrency", "0"),
        ("consumer", "--queue", "a b"),
        ("nonsense",),
        ("start", "ask", "--user", " "),
    ],
)
def test_wrong_usage_exits_with_2(serverless: Cli, arguments: tuple[str, ...]) -> None:
    assert serverless(*arguments, code=2).stdout == ""


SERVERLESS = [("list",), ("start", "ask"), ("status",), ("db", "upgrade"), ("dev",), ("coordinator",), ("consumer",)]


@pytest.mark.parametrize("arguments", SERVERLESS)
def test_a_missing_database_is_reported_in_one_line(serverless: Cli, arguments: tuple[str, ...]) -> None:
    done = serverless(*arguments, code=1)
    assert len(serverless.said(done)) == 1
    assert "PostgreSQL" in done.stderr
    assert "hidden" not in done.stdout + done.stderr


def test_a_missing_broker_is_reported_in_one_line_and_leaves_nothing_behind(cli: Cli) -> None:
    for arguments in (
        ("start", "ask"),
        ("status",),
        ("topology", "show"),
        ("dev", "--port", "0"),
        ("coordinator",),
        ("consumer",),
    ):
        done = cli(*arguments, code=1, ORCHESTRATOR_AMQP_URL=NO_BROKER)
        assert [line for line in cli.said(done) if "RabbitMQ" in line] == cli.said(done)
        assert len(cli.said(done)) == 1
        assert "hidden" not in done.stdout + done.stderr
    assert cli.json("list") == []


@pytest.mark.parametrize("variable", ["ORCHESTRATOR_DATABASE_URL", "ORCHESTRATOR_AMQP_URL", "ORCHESTRATOR_QUEUE_TYPE"])
def test_a_wrong_setting_is_named_in_one_line(serverless: Cli, variable: str) -> None:
    done = serverless("list", code=1, **{variable: "nonsense"})
    assert variable in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_broken_module_is_named_in_one_line(serverless: Cli) -> None:
    (serverless.folder / "flows.py").write_text("1 / 0")
    done = serverless("workflows", code=1)
    assert "'flows'" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_first_signal_drains_and_the_second_ends_at_once(cli: Cli) -> None:
    with cli.program("coordinator"), cli.program("consumer", "--concurrency", "5") as consumer:
        cli.until(cli.is_reading)
        process = cli.start("sleep")
        cli.until(lambda: bool(cli.json("show", process)["claimed"]))
        consumer.send_signal(signal.SIGTERM)
        cli.until(lambda: "draining" in (cli.folder / "consumer.log").read_text())
        assert consumer.poll() is None
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(PATIENCE) == 128 + signal.SIGTERM


def test_running_steps_finish_after_the_first_signal(cli: Cli, dev: Program) -> None:
    process = cli.start("sleep")
    cli.until(lambda: bool(cli.json("show", process)["claimed"]))
    status = cli.json("status")
    assert status["processes"] == {"running": 1}
    (running,) = status["running_steps"]
    (consumer,) = status["consumers"]
    names = [running[name] for name in ("process_id", "workflow", "step", "consumer")]
    assert names == [process, "sleep", "Sleep", consumer["name"]]
    assert datetime.fromisoformat(running["until"]) - datetime.fromisoformat(running["claimed_at"]) == DEFAULT_TIMEOUT
    (coordinator,) = status["coordinators"]
    assert coordinator["name"] == consumer["name"][: len(coordinator["name"])]
    shown = cli("--utc", "status", COLUMNS="200").stdout
    assert f"coordinators: {coordinator['name']} (connected since " in shown
    assert "processes: 1 running" in shown
    assert re.search(rf"{process[:8]}  sleep +Sleep +{consumer['name']} +[-\d :]+ [\d.]+ s +[-\d :]+\n", shown)
    dev.send_signal(signal.SIGTERM)
    cli.until(lambda: "draining" in (cli.folder / "dev.log").read_text())
    (cli.folder / "wake").touch()
    assert dev.wait(PATIENCE) == 0
    assert cli.json("show", process)["status"] == "completed"


def test_whoever_follows_may_leave_with_ctrl_c(cli: Cli) -> None:
    process = cli.start("sleep")
    with subprocess.Popen(
        [ORCHESTRATOR, "watch", process],
        cwd=cli.folder,
        env=cli.environment | {"PYTHONUNBUFFERED": "1"},
        stdout=-1,
        stderr=-1,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        assert "created" in watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        _, complaints = watch.communicate(timeout=PATIENCE)
    assert watch.returncode == 130
    assert complaints == ""


def test_a_pipe_that_is_closed_early_is_no_news(cli: Cli) -> None:
    for arguments in (("workflows",), ("workflows", "--json")):
        with subprocess.Popen(
            [ORCHESTRATOR, *arguments], cwd=cli.folder, env=cli.environment, stdout=-1, stderr=-1, text=True
        ) as reader:
            assert reader.stdout is not None
            assert reader.stderr is not None
            reader.stdout.close()
            assert reader.stderr.read().replace("a module that prints\n", "") == ""


def test_a_database_that_was_never_migrated_is_reported_in_one_line_and_migrated_by_one_command(cli: Cli) -> None:
    assert cli.json("db", "downgrade", "base") == {"heads": []}
    for arguments in (("list",), ("start", "ask"), ("dev",), ("coordinator",), ("consumer",)):
        done = cli(*arguments, code=1)
        (said,) = cli.said(done)
        assert said.startswith(
            "the database is not migrated, or not up to date: run 'orchestrator db upgrade', which says so"
        )
    assert cli.json("db", "status", code=1)["applied"] == []
    heads = cli.json("db", "upgrade")["heads"]
    assert cli.json("db", "status") == {"applied": heads, "pending": []}
    assert cli.json("list") == []


def test_the_difference_between_code_and_database_becomes_a_migration(cli: Cli) -> None:
    (cli.folder / "flows.py").write_text(
        (cli.folder / "flows.py").read_text().replace('"call"):', '"extra"):').replace("def call(", "def extra(")
    )
    before = {one["name"]: (one["in_code"], one["in_database"]) for one in cli.json("workflows")}
    assert before["extra"] == (True, False)
    assert before["call"] == (False, True)
    assert "not in the database" in cli("start", "extra", code=1).stderr
    assert "not in the code" in cli("start", "call", code=1).stderr

    written = cli("db", "migrate-workflows", "-m", "first").stdout
    assert re.search("^adds extra$", written, re.MULTILINE)
    assert re.search("^removes call$", written, re.MULTILINE)
    assert re.search("^changes ask, greet, sleep, stumble$", written, re.MULTILINE)  # their descriptions
    assert "db upgrade" in cli("db", "migrate-workflows", code=1).stderr
    cli("db", "upgrade")
    assert cli.json("db", "status")["pending"] == []
    assert cli.json("db", "migrate-workflows") == {"path": None, "added": [], "removed": [], "changed": []}
    assert "nothing to do" in cli("db", "migrate-workflows").stdout
    cli("start", "extra")
    path = Path(cli.json("db", "revision", "-m", "more")["path"])
    assert path.parent == cli.folder / "migrations" / "project"
    cli("db", "upgrade")
    cli("db", "downgrade", "project@base")
    assert {one["name"] for one in cli.json("workflows") if one["in_database"]} == {*FLOWS, *SHIPPED}


def test_the_topology_is_shown_and_declared(cli: Cli) -> None:
    assert not any(queue["exists"] for queue in cli.json("topology", "show")["queues"])
    assert "missing" in cli("topology", "show").stdout
    cli("topology", "declare")
    shown = cli.json("topology", "show")
    assert all(queue["exists"] and queue["ready"] == 0 for queue in shown["queues"])
    assert {exchange["name"] for exchange in shown["exchanges"]} >= {"orchestrator.commands", "orchestrator.callbacks"}
    cli.start("ask")
    looks = {queue["name"]: queue["ready"] for queue in cli.json("status")["queues"]}
    assert looks["orchestrator.results"] == 1


def test_whoever_waits_without_a_consumer_is_warned(cli: Cli) -> None:
    with cli.program("start", "sleep", "--wait"):
        cli.until(lambda: "no consumer is running" in (cli.folder / "start.log").read_text())


@pytest.mark.parametrize(
    ("words", "completed"),
    [("orchestrator subscriptions hi", ["history"]), ("orchestrator list --status fa", ["failed"])],
)
def test_a_shell_completes_commands_and_values(serverless: Cli, words: str, completed: list[str]) -> None:
    last = str(len(words.split()) - 1)
    asked = serverless(_ORCHESTRATOR_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=last)
    assert asked.stdout.split() == completed


def test_help_and_version_need_no_settings(serverless: Cli) -> None:
    for arguments in (("--version",), ("--help",), ("start", "--help"), ("db", "--help")):
        done = serverless(*arguments, ORCHESTRATOR_DATABASE_URL="", ORCHESTRATOR_AMQP_URL="")
        assert done.stdout
        assert done.stderr == ""
