"""Steps that misbehave: each fails with a clear text, and its consumer and neighbours go on."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

RETURNS = {
    "a list": "returned list: return a dict of new state keys, or nothing",
    "a string": "returned str: return a dict of new state keys, or nothing",
    "a set in it": "returned something that cannot be stored as JSON",
    "not a number": "returned something that cannot be stored as JSON",
    "a number as key": "returned the key 1: state keys are strings",
    "bytes": "returned something that cannot be stored as JSON",
    "a null character": "a null character, which the database cannot hold",
    "itself": "returned something that cannot be stored as JSON",
    "too deep": "returned something that cannot be stored as JSON",
    "half a character": "returned something that cannot be stored as JSON",
    "sys.exit": "the step called sys.exit(3)",
    "StopIteration": "",
    "plain a list": "returned list: return a dict of new state keys, or nothing",
    "plain sys.exit": "the step called sys.exit(3)",
    "plain StopIteration": "the step raised StopIteration",
}


@pytest.mark.parametrize("what", RETURNS)
def test_a_step_that_returns_or_raises_something_odd_fails(engine: Installation, what: str) -> None:
    """B5, B32: FAILED with a text that names the step; nothing of it is stored; the consumer lives."""
    process_id = engine.finish("goes_wrong", {"name": what}, status="failed")
    entry = engine.log(process_id, "Go wrong in a thread" if what.startswith("plain") else "Go wrong")[-1]
    assert entry.failure is not None
    assert RETURNS[what] in entry.failure["message"]
    assert engine.effects(process_id) == []
    assert engine.state(process_id) == {"name": what}
    engine.finish("one_step")


@pytest.mark.parametrize(
    "what", ["GeneratorExit", "plain GeneratorExit", "KeyboardInterrupt", "plain KeyboardInterrupt"]
)
def test_a_step_that_raises_what_is_no_exception_fails_and_its_consumer_lives(own: Installation, what: str) -> None:
    """B5: BaseException, too, is the step's fault and not the consumer's."""
    process_id = own.finish("goes_wrong", {"name": what}, status="failed")
    assert own.effects(process_id) == []
    assert all(program.runs for program in own.programs)
    own.finish("one_step")


@pytest.mark.parametrize("how", ["sleeps", "stubborn", "blocks"])
def test_a_step_that_never_ends_is_cancelled_at_its_timeout(engine: Installation, how: str) -> None:
    """B5: an endless sleep, a step that ignores its cancellation, a thread that blocks; then a retry works."""
    process_id = engine.finish("too_slow", {"name": how}, status="failed")
    (entry,) = [one for one in engine.log(process_id) if one.failure is not None]
    assert entry.failure is not None
    assert entry.failure["type"] == "StepTimeoutError"
    assert "it ran longer than its timeout of 0.5 s" in entry.failure["message"]
    assert engine.effects(process_id) == []
    engine.open_gate(f"mended-{process_id}")
    engine.retry(process_id)
    until(lambda: engine.status(process_id) == "completed", "the retried process is completed")
    assert engine.effects(process_id) == ["Take too long"]


def test_the_general_step_timeout_is_a_setting(installations: MakeInstallation) -> None:
    """B5: ORCHESTRATOR_STEP_TIMEOUT for steps that name none."""
    engine = installations(ORCHESTRATOR_STEP_TIMEOUT="0.4")
    for program in (engine.coordinator(), engine.consumer()):
        program.ready()
    process_id = engine.finish("holds", status="failed")
    failure = engine.log(process_id, "Hold")[0].failure
    assert failure is not None
    assert "it ran longer than its timeout of 0.4 s" in failure["message"]
    assert engine.effects(process_id) == []


@pytest.mark.parametrize("neighbours", [0, 10])
def test_a_step_that_brings_down_its_consumers_is_failed_and_its_neighbours_complete(
    installations: MakeInstallation, neighbours: int
) -> None:
    """B8: os._exit in a step: it takes one consumer along, and then only child processes; others finish, once each."""
    engine = installations(
        ORCHESTRATOR_MAX_LOST_ATTEMPTS="3",
        ORCHESTRATOR_PRESUMED_DEAD_AFTER="2",
        # Each of the neighbours holds a connection, in a child process with half of them too; the deadly step needs one.
        ORCHESTRATOR_DATABASE_POOL_SIZE="24",
    )
    engine.coordinator().ready()
    others = [engine.start("holds") for _ in range(neighbours)]
    consumer = engine.consumer()
    for process_id in others:
        engine.wait_for_note(process_id, "held")
    deadly = engine.start("dies")
    until(lambda: not consumer.runs, "the step brings down its consumer")
    consumer = engine.consumer().ready()
    engine.finish("one_step")
    engine.wait_for(deadly, "failed")
    assert consumer.runs
    failure = engine.log(deadly, "Die")[-1].failure
    assert failure is not None
    assert failure["type"] == "ConsumerLostError"
    assert "lost the child process that ran it alone: it exited with code 9" in failure["message"]
    assert "brought down its consumer 3 times in a row and is not run again" in failure["message"]
    lost = [one.note or "" for one in engine.log(deadly, "attempt lost")]
    assert "is presumed dead: it sent no heartbeat for" in lost[0]
    assert sum("that ran it alone" in one for one in lost) == 2
    assert len(engine.journal(deadly, "dying")) == len(lost) + 1
    assert len(lost) <= 3 + (neighbours + 1).bit_length()
    assert engine.effects(deadly) == []
    for process_id in others:
        engine.open_gate(f"hold-{process_id}")
    for process_id in others:
        engine.wait_for(process_id, "completed")
        assert engine.effects(process_id) == ["Hold", "After the hold"]
        assert len([one for one in engine.log(process_id, "Hold") if one.status == "success"]) == 1
    engine.open_gate("live")
    engine.retry(deadly)
    until(lambda: engine.status(deadly) == "completed", "the mended step completes after a retry")
    assert engine.effects(deadly) == ["Die"]
