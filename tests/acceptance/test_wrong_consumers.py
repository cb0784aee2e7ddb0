"""Consumers that lack a workflow, or a library that it needs, beside consumers that have them."""

from __future__ import annotations

import socket

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.programs import Program
from tests.acceptance.waiting import until

ALIVE = {"ORCHESTRATOR_PRESUMED_DEAD_AFTER": "60"}
"""On a busy machine, too, every consumer counts."""

RARELY = {**ALIVE, "ORCHESTRATOR_REDISPATCH_AFTER": "300"}
"""No test waits for the reconciler to publish a command again."""

DECLINED = "step not run by this consumer"


def count_declined(consumer: Program) -> int:
    """Return how many commands a consumer has declined."""
    return consumer.output().count(DECLINED)


def lay_out_project(engine: Installation) -> dict[str, str]:
    """Write a project whose one workflow needs a library; return the settings of a program that has the library."""
    (engine.folder / "flows.py").write_text(
        "from orchestrator.workflows import LazyWorkflowInstance\n"
        "LazyWorkflowInstance('needs_library', 'only_in_database')\n"
    )
    (engine.folder / "needs_library.py").write_text(
        "import library_of_lab\n"
        "from orchestrator.workflow import done, init, step, workflow\n"
        "@step('Configure')\n"
        "def configure() -> dict[str, int]: return {'answer': library_of_lab.ANSWER}\n"
        "@workflow('Needs a library')\n"
        "def only_in_database(): return init >> configure >> done\n"
    )
    (engine.folder / "libraries").mkdir()
    (engine.folder / "libraries" / "library_of_lab.py").write_text("ANSWER = 42\n")
    return {"PYTHONPATH": f"{engine.environment['PYTHONPATH']}:{engine.folder / 'libraries'}"}


def test_a_consumer_that_lacks_the_workflow_leaves_its_steps_to_one_that_has_it(
    installations: MakeInstallation,
) -> None:
    """Issue 9.4: each command goes on at once, and not to the same consumer again and again."""
    engine = installations(**RARELY)
    wrong = engine.consumer(ORCHESTRATOR_WORKFLOWS="").ready()
    for program in (engine.consumer(), engine.coordinator()):
        program.ready()
    engine.client.listen()

    for process_id in [engine.start("three_steps", {}) for _ in range(15)]:
        engine.wait_for(process_id, "completed")

    assert 0 < count_declined(wrong) < 45 * 5, "of 45 commands half go to the wrong consumer first, and a quarter twice"


def test_while_the_right_consumer_is_busy_the_wrong_one_keeps_commands_longer_and_longer(
    installations: MakeInstallation,
) -> None:
    """Issue 9.4: it does not pass them round and round; they go on once a slot of the right one is free."""
    engine = installations(**RARELY)
    wrong = engine.consumer(ORCHESTRATOR_WORKFLOWS="").ready()
    for program in (engine.consumer("--concurrency", "1"), engine.coordinator()):
        program.ready()
    engine.client.listen()
    holder = engine.start("holds")
    engine.wait_for_note(holder, "held")
    waiting = [engine.start("three_steps", {}) for _ in range(5)]
    until(lambda: count_declined(wrong) >= 15, "the wrong consumer sees the same commands again")

    engine.open_gate(f"hold-{holder}")
    for process_id in (holder, *waiting):
        engine.wait_for(process_id, "completed")
    assert count_declined(wrong) < 200


def test_a_process_that_no_consumer_can_run_goes_on_as_soon_as_one_comes(installations: MakeInstallation) -> None:
    """Issue 9.4: at once, whatever the interval is at which commands are published again."""
    engine = installations(**RARELY)
    wrong = engine.consumer(ORCHESTRATOR_WORKFLOWS="").ready()
    engine.coordinator().ready()
    engine.client.listen()
    process_id = engine.start("three_steps", {})
    until(lambda: count_declined(wrong), "the only consumer declines the step")
    until(lambda: engine.value("SELECT dispatches FROM processes"), "its command is dropped")
    assert count_declined(wrong) == 1

    because = f"{socket.gethostname()}:{wrong.pid} reads this queue, but does not know 'three_steps'"
    watching = engine.run("watch", "watch", str(process_id))
    shown = engine.command("show", str(process_id)).stdout
    assert because in shown
    assert "no consumer of the queue 'default' can run it" in shown
    until(lambda: because in watching.output(), "whoever watches the process learns why it stands still")
    status = engine.command("status").stdout
    assert because in status
    assert "1 process stands at 'First' of 'three_steps'" in status
    (unclaimed,) = engine.json("status")["unclaimed"]
    (reader,) = unclaimed["readers"]
    assert (unclaimed["queue"], reader["inability"]) == ("default", "does not know 'three_steps'")

    engine.consumer().ready()
    engine.wait_for(process_id, "completed")
    assert watching.exit_code() == 0
    assert engine.json("status")["unclaimed"] == []


def test_the_log_of_a_process_says_once_why_no_consumer_runs_its_step(installations: MakeInstallation) -> None:
    """Issue 9.4: once for each consumer and reason, however often the command is published; the events stay in order."""
    engine = installations(**ALIVE)
    wrong = engine.consumer(ORCHESTRATOR_WORKFLOWS="").ready()
    engine.coordinator().ready()
    engine.client.listen()
    process_id = engine.start("three_steps", {})
    until(lambda: engine.log(process_id, "no consumer"), "the log says that no consumer can run the step")
    published = count_declined(wrong)
    until(lambda: count_declined(wrong) >= published + 2, "the command is published again, and again")
    (entry,) = engine.log(process_id, "no consumer")
    name = f"{socket.gethostname()}:{wrong.pid}"
    assert entry.note == (f"no consumer of the queue 'default' can run this step: {name} does not know 'three_steps'")
    assert (entry.kind, entry.status, entry.author, entry.attempt) == ("process", "running", "SYSTEM", 0)
    assert engine.status(process_id) == "running"

    engine.consumer().ready()
    engine.wait_for(process_id, "completed")
    names = [one.name for one in engine.log(process_id)]
    assert names.count("no consumer") == 1
    assert names.index("no consumer") < names.index("First")

    def numbers() -> list[int]:
        return list(dict.fromkeys(one.body["sequence"] for one in engine.client.events_of(process_id)))

    until(lambda: len(numbers()) == len(names), "every entry is an event")
    assert numbers() == list(range(1, len(names) + 1)), "in order"


def test_a_consumer_without_a_library_leaves_the_steps_that_need_it_to_others(
    installations: MakeInstallation,
) -> None:
    """Issue 9.4: one module that cannot be imported disables its own workflows only."""
    engine = installations(ORCHESTRATOR_WORKFLOWS="tests.acceptance.workflows,flows", **RARELY)
    library = lay_out_project(engine)
    wrong = engine.consumer().ready()
    engine.coordinator(**library).ready()
    engine.client.listen()
    other = engine.start("three_steps", {})
    process_id = engine.start("only_in_database")
    until(lambda: count_declined(wrong), "the only consumer declines the step")
    engine.wait_for(other, "completed")
    assert engine.status(process_id) == "running"
    because = "the module 'needs_library' cannot be imported: ModuleNotFoundError: No module named 'library_of_lab'"
    (line,) = [one for one in wrong.output().splitlines() if "its code is broken" in one and because in one]
    assert "workflow=only_in_database" in line
    assert because in engine.command("show", str(process_id)).stdout
    assert (
        f"{socket.gethostname()}:{wrong.pid} cannot run 'only_in_database': {because}"
        in engine.command("status").stdout
    )

    engine.consumer(**library).ready()
    engine.wait_for(process_id, "completed")
    assert engine.state(process_id)["answer"] == 42
    for again in [engine.start("only_in_database") for _ in range(10)]:
        engine.wait_for(again, "completed")
