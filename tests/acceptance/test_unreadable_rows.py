"""Answers that nest too deeply, and rows that no program can read, fail their own process and harm nothing else."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.test_callbacks import parked
from tests.acceptance.waiting import until


def nested(levels: int) -> bytes:
    """Return an object that has so many levels below it."""
    return b'{"ok": true, "a": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


DEEP = nested(250).decode()


def spoil(engine: Installation, process_id: UUID) -> None:
    """Store in a state what an earlier version may have stored."""
    engine.write(
        "UPDATE processes SET state = state || jsonb_build_object('deep', $2::text::jsonb) WHERE process_id = $1",
        process_id,
        DEEP,
    )


def failure(engine: Installation, process_id: UUID) -> str:
    """Return the newest failure of a process."""
    engine.wait_for(process_id, "failed")
    (*_, last) = [one.failure for one in engine.log(process_id) if one.failure is not None]
    return f"{last['type']}: {last['message']}"


@pytest.mark.parametrize("levels", [100, 150, 199, 200, 300, 3000])
def test_an_answer_that_nests_too_deeply_fails_its_step(engine: Installation, levels: int) -> None:
    """200 levels under the answer's key were 201 in the state, and every consumer that claimed the process exited."""
    process_id, token = parked(engine)
    engine.answer(token, nested(levels))
    assert failure(engine, process_id) == (
        "InvalidResultError: the callback's answer cannot be taken: it is nested"
        f" {levels + 1} levels deep, and 100 are the limit"
    )
    engine.retry(process_id)
    engine.answer(engine.token(process_id, 2), nested(99))
    engine.wait_for(process_id, "completed")


def test_an_early_answer_that_nests_too_deeply_fails_its_step_as_soon_as_it_waits(engine: Installation) -> None:
    process_id = engine.start("calls_out")
    engine.answer(engine.token(process_id), nested(500))
    until(lambda: engine.value("SELECT outcome FROM callbacks WHERE process_id = $1", process_id), "it is kept")
    engine.open_gate(f"order-{process_id}")
    assert "it is nested 501 levels deep, and 100 are the limit" in failure(engine, process_id)


def test_input_that_nests_too_deeply_is_refused_with_words(engine: Installation) -> None:
    """At the start, for an input step, and in a patch; nothing changes, and the same message with less in it is taken."""
    deep = json.loads(nested(150))
    words = "page 1 of the input cannot be stored as JSON: it is nested 151 levels deep, and 100 are the limit"
    start = {"workflow": "three_steps", "inputs": [{"name": deep}], "user": "tester"}
    refused = engine.client.ask("workflow.start", start)
    assert (refused.type, refused.body["error"], refused.body["detail"]) == (
        "workflow.refused",
        "InvalidInputError",
        words,
    )
    process_id = engine.start("asks")
    engine.wait_for(process_id, "suspended")
    assert engine.resume(process_id, {"choice": deep}).body["detail"] == words
    written = json.dumps(deep)
    done = engine.command("patch", str(process_id), "--set", f"a={written}", "--reason", "x", exit_code=1)
    assert "it is nested 151 levels deep, and 100 are the limit" in done.stderr
    assert engine.status(process_id) == "suspended"
    engine.abort(process_id)


def test_consumers_claim_states_that_cannot_be_read_beside_others_and_live(own: Installation) -> None:
    """The others complete; the process fails with the key's name, is retried in vain, and goes on when it is patched."""
    own.programs[1].stop()
    processes = [own.start("three_steps", {}) for _ in range(12)]
    bad, aborted = processes[3], processes[7]
    for one in (bad, aborted):
        spoil(own, one)
    consumers = [own.consumer().ready() for _ in range(2)]
    for one in set(processes) - {bad, aborted}:
        own.wait_for(one, "completed")
    words = failure(own, bad)
    assert (
        "UnreadableStateError: the state of this process cannot be read (the value of 'deep': it is nested 250" in words
    )
    failure(own, aborted)

    shown = own.json("show", str(bad), "--state")
    assert shown["state"]["deep"] == "[cannot be read: it is nested 250 levels deep, and 100 are the limit]"
    assert str(bad) in own.command("list").stdout
    assert "cannot be read" in own.command("show", str(bad), "--state").stdout
    own.retry(bad)
    until(lambda: len([one for one in own.log(bad) if one.failure is not None]) == 2, "the retry has failed")
    assert failure(own, bad) == words
    own.command("patch", str(bad), "--remove", "deep", "--reason", "too deep")
    own.retry(bad)
    own.wait_for(bad, "completed")
    own.command("abort", str(aborted))
    assert own.status(aborted) == "aborted"
    assert all(one.runs for one in consumers)


def test_a_waiting_process_whose_state_cannot_be_read_fails_when_its_answer_comes(own: Installation) -> None:
    """The coordinator reads the row then; nothing of its state is used for a condition, and other answers are taken."""
    (bad, bad_token), (good, good_token) = parked(own), parked(own)
    spoil(own, bad)
    for token in (bad_token, good_token):
        own.answer(token, {"ok": True})
    own.wait_for(good, "completed")
    assert "UnreadableStateError" in failure(own, bad)
    own.command("patch", str(bad), "--set", "deep=1", "--reason", "too deep")
    own.retry(bad)
    own.wait_for(bad, "completed")
    assert own.state(bad)["callback_result"] == {"ok": True}
    assert all(one.runs for one in own.programs)


def test_a_log_that_cannot_be_read_is_shown_with_a_remark(engine: Installation) -> None:
    """Its entries, and the state at one of them, with everything else that is in them."""
    process_id = engine.finish("three_steps", {})
    for number, levels in enumerate((250, 3000), start=100):
        engine.write(
            """INSERT INTO process_steps (process_id, sequence, kind, name, attempt, status, delta, author, started_at,
                                          finished_at)
               VALUES ($1, $3, 'process', 'patched', 9, 'completed', jsonb_build_object('deep', $2::text::jsonb), 'x',
                       now(), now())""",
            process_id,
            nested(levels).decode(),
            number,
        )
        remark = f"[cannot be read: it is nested {levels} levels deep, and 100 are the limit]"
        state = engine.json("show", str(process_id), "--at", str(number))["state"]
        assert (state["first"], state["deep"]) == (1, remark)
        assert remark[:40] in engine.command("show", str(process_id)).stdout
