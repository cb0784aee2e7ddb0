"""Pausing the engine and ending processes, at any moment."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import throughout, until


def now(engine: Installation) -> datetime:
    """The database's time."""
    found: datetime = engine.value("SELECT clock_timestamp()")
    return found


def test_nothing_is_claimed_while_paused_and_nothing_is_lost(in_both_modes: MakeInstallation) -> None:
    """Pause and unpause three times under load: no step starts in between, every step runs exactly once."""
    engine = in_both_modes()
    for program in (engine.coordinator(), engine.consumer("--concurrency", "3"), engine.consumer("--concurrency", "3")):
        program.ready()
    process_ids: list[UUID] = []
    pauses: list[tuple[datetime, datetime]] = []
    for _ in range(3):
        held = engine.start("holds")
        engine.wait_for_note(held, "held")
        process_ids += [engine.start("pauses_here") for _ in range(40)]
        engine.command("pause")
        began = now(engine)
        engine.open_gate(f"hold-{held}")
        until(lambda: engine.value("SELECT count(*) FROM processes WHERE claimed_by IS NOT NULL") == 0, "all at rest")
        assert engine.json("status")["status"] == "PAUSED"
        assert engine.effects(held) == ["Hold"], "the running step has finished, its successor waits"
        assert engine.status(held) == "running"
        pauses.append((began, now(engine)))
        engine.command("unpause")
        engine.wait_for(held, "completed", 90)
    for process_id in process_ids:
        engine.wait_for(process_id, "completed", 90)
        assert engine.effects(process_id) == ["Short wait", "After the hold"]
        assert [one["what"] for one in engine.journal(process_id)] == ["short wait", "first", "after the hold"]
    for began, ended in pauses:
        started = engine.value(
            "SELECT count(*) FROM process_steps WHERE consumer IS NOT NULL AND started_at > $1 AND started_at < $2",
            began,
            ended,
        )
        assert started == 0
    changes = engine.query("SELECT global_lock FROM engine_settings_log ORDER BY change_id")
    assert [row["global_lock"] for row in changes] == [True, False] * 3


def test_a_paused_engine_finishes_running_steps_and_refuses_starts_with_a_reason(own: Installation) -> None:
    """PAUSING while a step runs, then PAUSED; starts, retries and input are refused; answers and aborts are taken."""
    running, suspended, failed = own.start("holds"), own.start("asks"), own.finish("mended", status="failed")
    parked = own.start("calls_out")
    own.open_gate(f"order-{parked}")
    token = own.token(parked)
    own.wait_for(parked, "awaiting_callback")
    waiting = own.start("tried_again")
    own.wait_for_note(waiting, "try", 2)
    own.wait_for_note(running, "held")
    own.wait_for(suspended, "suspended")

    own.command("pause", "--user", "gina", "--reason", "the IMS is upgraded")
    status = own.json("status")
    assert (status["status"], status["changed_by"], status["reason"]) == ("PAUSING", "gina", "the IMS is upgraded")
    until(lambda: own.logs().count("engine paused: no step is claimed") == 2, "coordinator and consumer log it")
    refused = own.client.ask("workflow.start", {"workflow": "one_step"})
    assert refused.body["error"] == "EnginePausedError"
    assert own.resume(failed).body["error"] == "EnginePausedError"
    assert own.resume(suspended, {"choice": "red"}, {"sure": True}).body["error"] == "EnginePausedError"
    assert "the engine is paused" in own.command("start", "one_step", exit_code=1).stderr
    own.open_gate(f"hold-{running}")
    until(lambda: own.json("status")["status"] == "PAUSED", "the running step has finished")
    assert own.effects(running) == ["Hold"]
    own.answer(token, {"ok": True})
    tries = len(own.journal(waiting, "try"))
    own.open_gate(f"mended-{waiting}")
    assert own.abort(suspended).body["status"] == "aborted"

    def at_rest() -> bool:
        nothing_new = own.journal(running, "after the hold") == own.journal(parked, "check") == []
        return nothing_new and len(own.journal(waiting, "try")) == tries

    throughout(at_rest, "no step runs while the engine is paused", 2)
    own.command("unpause", "--user", "gina")
    for process_id in (running, parked, waiting):
        own.wait_for(process_id, "completed")
    assert own.effects(running) == ["Hold", "After the hold"]
    assert own.effects(parked) == ["Order", "Check"]


def test_a_pause_outlives_the_programs(own: Installation) -> None:
    """A paused engine that is killed and started again is still paused."""
    process_id = own.start("holds")
    own.wait_for_note(process_id, "held")
    own.command("pause")
    own.kill_all()
    for program in (own.coordinator(), own.consumer()):
        program.ready()
    own.open_gate(f"hold-{process_id}")
    until(
        lambda: own.value("SELECT claimed_by IS NULL FROM processes WHERE process_id = $1", process_id),
        "the dead consumer's claim is given back",
    )
    throughout(lambda: own.effects(process_id) == [], "nothing is claimed while paused", 2)
    own.command("unpause")
    own.wait_for(process_id, "completed")
    assert own.effects(process_id) == ["Hold", "After the hold"]


def test_the_writes_of_a_step_that_is_aborted_never_appear(engine: Installation) -> None:
    """Abort while the step runs: ABORTED at once; its commit is refused; the author of the abort is kept."""
    process_id = engine.start("holds", user="alice")
    engine.wait_for_note(process_id, "held")
    answer = engine.abort(process_id, user="bob", reason="wrong customer")
    assert answer.body["status"] == "aborted"
    assert engine.status(process_id) == "aborted"
    engine.open_gate(f"hold-{process_id}")
    engine.wait_for_note(process_id, "let go")
    other = engine.start("holds")
    engine.open_gate(f"hold-{other}")
    engine.wait_for(other, "completed")
    throughout(lambda: engine.effects(process_id) == [] and engine.status(process_id) == "aborted", "stays so", 1)
    assert "held" not in engine.state(process_id)
    log = engine.log(process_id)
    assert [(one.name, one.status, one.author) for one in log[-2:]] == [
        ("Hold", "abort", "bob"),
        ("aborted", "aborted", "bob"),
    ]
    assert log[-1].note == "wrong customer"
    shown = engine.json("show", str(process_id))
    assert (shown["started_by"], shown["actor"]) == ("alice", "bob")


def test_a_step_that_goes_on_after_its_abort_is_cancelled(engine: Installation) -> None:
    """Nobody waits for a step whose outcome cannot be stored: its consumer cancels it and has its slot back."""
    process_id = engine.start("holds")
    engine.wait_for_note(process_id, "held")
    engine.abort(process_id)
    until(lambda: f"process_id={process_id}" in engine.logs() and "its claim is gone" in engine.logs(), "cancelled")
    assert engine.journal(process_id, "let go") == []
    assert engine.effects(process_id) == []


def test_an_abort_at_any_moment_leaves_whole_steps_only(engine: Installation) -> None:
    """Thirty processes, aborted while they run: effects and log agree, and nothing comes after the abort."""
    # Long ones, so that however slow the machine is, or fast, the abort and not the end of the steps comes first.
    process_ids = [engine.start("long_chain") for _ in range(30)]
    for number, process_id in enumerate(process_ids):
        until(lambda p=process_id, n=number: len(engine.effects(p)) >= n % 4, "some steps are done")  # type: ignore[misc]
        engine.abort(process_id)
    statuses = {process_id: engine.status(process_id) for process_id in process_ids}
    assert set(statuses.values()) == {"aborted"}
    throughout(lambda: {p: engine.status(p) for p in process_ids} == statuses, "final means final", 1)
    for process_id, status in statuses.items():
        done = [one.name for one in engine.log(process_id) if one.status == "success" and one.name.startswith("Link")]
        assert engine.effects(process_id) == done
        assert engine.log(process_id)[-1].status == status


def test_what_is_final_stays_final(engine: Installation) -> None:
    """A second abort, an abort of a completed process and a retry of an aborted one are refused."""
    aborted, completed = engine.start("asks"), engine.finish("one_step")
    engine.wait_for(aborted, "suspended")
    engine.command("abort", str(aborted), "--reason", "not needed", "--user", "hugo")
    assert engine.log(aborted)[-1].author == "hugo"
    assert engine.log(aborted)[-1].note == "not needed"
    for answer in (engine.abort(aborted), engine.abort(completed)):
        assert answer.body["error"] == "IllegalTransitionError"
        assert "it is final" in answer.body["detail"]
    assert "aborted cannot be retried" in engine.resume(aborted).body["detail"]
    assert engine.log(aborted)[-1].author == "hugo"
