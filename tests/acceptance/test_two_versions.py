"""Programs with two versions of a workflow's code beside each other, as in every deploy and every rollback."""

from __future__ import annotations

from uuid import UUID

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

WORKFLOW = "only_in_database"
HEAD = """
import os, pathlib, time
from orchestrator.workflow import done, init, inputstep, step, workflow
from orchestrator.forms import FormPage

def wait_at_gate():
    while not (pathlib.Path(os.environ["LAB"]) / "gates" / "open").exists():
        time.sleep(0.02)

class Page(FormPage):
    yes: bool

@inputstep("Confirm")
def confirm():
    return Page

"""
V1 = ("Reserve", "Activate")
V2 = ("Reserve", "Check credit", "Activate")


def lay_out(engine: Installation, version: str, *steps: str, gate: str | None = None) -> dict[str, str]:
    """Write a version of the code; return the settings of a program that has it."""
    (engine.folder / "flows.py").write_text(
        f"from orchestrator.workflows import LazyWorkflowInstance\nLazyWorkflowInstance('versions', '{WORKFLOW}')\n"
    )
    names = {name: "confirm" if name == "Confirm" else name.lower().replace(" ", "_") for name in steps}
    bodies = [
        f"@step({name!r})\ndef {function}():\n    {'wait_at_gate()' if name == gate else 'pass'}\n"
        for name, function in names.items()
        if name != "Confirm"
    ]
    flow = f"@workflow('{version}')\ndef {WORKFLOW}(): return init >> {' >> '.join(names.values())} >> done\n"
    folder = engine.folder / version
    folder.mkdir()
    (folder / "versions.py").write_text(HEAD + "".join(bodies) + flow)
    return {"PYTHONPATH": f"{engine.environment['PYTHONPATH']}:{folder}"}


def make(installations: MakeInstallation) -> Installation:
    engine = installations(ORCHESTRATOR_WORKFLOWS="tests.acceptance.workflows,flows", ORCHESTRATOR_REDISPATCH_AFTER="2")
    engine.client.listen()
    return engine


def ran(engine: Installation, process_id: UUID) -> list[str]:
    return [entry.name for entry in engine.log(process_id, kind="step") if entry.status == "success"]


def notes(engine: Installation, process_id: UUID) -> list[str | None]:
    return [entry.note for entry in engine.log(process_id, "plan changed")]


def plans(engine: Installation) -> list[tuple[int, str]]:
    return [
        (row["number"], row["fingerprint"])
        for row in engine.query("SELECT * FROM workflow_plans WHERE workflow = $1 ORDER BY number", WORKFLOW)
    ]


def test_no_process_skips_a_step_while_old_and_new_programs_run_side_by_side(installations: MakeInstallation) -> None:
    """Issue 9.1: a coordinator of the new version, a consumer of each; some processes are older than the new version."""
    engine = make(installations)
    old, new = lay_out(engine, "v1", *V1, gate="Reserve"), lay_out(engine, "v2", *V2)
    engine.consumer("--concurrency", "4", **old).ready()
    before = engine.coordinator(**old).ready()
    older = [engine.start(WORKFLOW) for _ in range(3)]
    until(lambda: engine.value("SELECT count(*) FROM processes WHERE claimed_by IS NOT NULL") == 3, "all have begun")
    before.stop()
    engine.coordinator(**new).ready()
    engine.consumer(**new).ready()
    newer = [engine.start(WORKFLOW) for _ in range(20)]
    engine.open_gate("open")

    for process_id in (*older, *newer):
        engine.wait_for(process_id, "completed")
    assert [ran(engine, one) for one in newer] == [["Start", *V2]] * 20
    assert [notes(engine, one) for one in newer] == [[]] * 20
    assert [ran(engine, one) for one in older] == [["Start", *V1]] * 3
    lies_before = "plan 2: + Check credit, does not run in this process: it lies before its place"
    assert [notes(engine, one) for one in older] == [[lies_before]] * 3, "the old plan had led them to Activate"


def test_an_old_program_that_starts_again_changes_nothing_and_a_rollback_is_a_plan_more(
    installations: MakeInstallation,
) -> None:
    """Issue 9.1: what is newest is decided by numbers that only rise, not by who starts last."""
    engine = make(installations)
    old = lay_out(engine, "v1", "Confirm", "Activate")
    new = lay_out(engine, "v2", "Confirm", "Check credit", "Activate")
    for code in (old, new):
        coordinator = engine.coordinator(**code).ready()
        waiting = engine.start(WORKFLOW)
        engine.wait_for(waiting, "suspended")
        coordinator.stop()
    for program in (engine.coordinator(**old), engine.consumer(**old)):
        program.ready()
    (_, first), (_, second) = plans(engine)
    assert [one["number"] for one in engine.json("plans", "list", WORKFLOW)] == [2, 1]
    assert "and not with the registered one" in str(engine.log(engine.start(WORKFLOW), "created")[0].note)

    assert "Confirm >> Check credit" in " ".join(engine.command("plans", "list", WORKFLOW).stdout.split())
    engine.command("plans", "activate", WORKFLOW, "1", "--user", "ann")
    assert plans(engine) == [(1, first), (2, second), (3, first)]
    assert (
        engine.value("SELECT registered_by FROM workflow_plans WHERE workflow = $1 AND number = 3", WORKFLOW) == "ann"
    )
    assert engine.resume(waiting, {"yes": True}).type == "process.resumed"

    engine.wait_for(waiting, "completed")
    assert ran(engine, waiting) == ["Start", "Confirm", "Activate"]
    assert notes(engine, waiting) == ["plan 3: - Check credit, does not run any more"]


def test_a_program_with_an_old_plan_refuses_what_it_cannot_decide_and_says_who_can(
    installations: MakeInstallation,
) -> None:
    """Issue 9.1: resume, on the command line and by message; abort needs no plan."""
    engine = make(installations)
    old = lay_out(engine, "v1", "Reserve", "Confirm", "Activate")
    new = lay_out(engine, "v2", "Reserve", "Confirm", "Check credit", "Activate")
    programs = [engine.coordinator(**old).ready(), engine.consumer(**old).ready()]
    older = engine.start(WORKFLOW)
    engine.wait_for(older, "suspended")
    programs += [engine.coordinator(**new).ready(), engine.consumer(**new).ready()]
    for program in programs[:2]:
        program.stop()
    newer, ended = engine.start(WORKFLOW), engine.start(WORKFLOW)
    for process_id in (newer, ended):
        engine.wait_for(process_id, "suspended")
    programs[2].stop()
    engine.coordinator(**old).ready()

    text = (
        f"the process has plan 2 of the workflow '{WORKFLOW}', and this program has plan 1: use a program with the code of"
        " plan 2, which is the registered one"
    )
    refused = engine.resume(newer, {"yes": True}).body
    assert (refused["error"], refused["detail"]) == ("PlanMismatchError", text)
    refused_here = engine.command(*resume(newer), exit_code=1, **old)
    assert text in refused_here.stderr
    assert engine.abort(ended).type == "process.aborted"

    for program in (engine.coordinator(**new), engine.consumer(**old)):
        program.ready()
    for process_id in (newer, older):
        engine.command(*resume(process_id), exit_code=0, **new)
        engine.wait_for(process_id, "completed")
        assert ran(engine, process_id) == ["Start", "Reserve", "Confirm", "Check credit", "Activate"]
    assert [notes(engine, one) for one in (newer, older)] == [[], ["plan 2: + Check credit, runs"]]


def test_a_command_goes_on_to_the_coordinator_that_has_the_code(installations: MakeInstallation) -> None:
    """Issue 9.1: resumes reach three coordinators by turns; one has an older plan, and one lacks the workflow."""
    engine = make(installations)
    old, new = (
        lay_out(engine, "v1", "Confirm", "Activate"),
        lay_out(engine, "v2", "Confirm", "Check credit", "Activate"),
    )
    engine.coordinator(**old).ready()
    for program in (engine.coordinator(**new), engine.consumer(**new)):
        program.ready()
    waiting = [engine.start(WORKFLOW) for _ in range(12)]
    for process_id in waiting:
        engine.wait_for(process_id, "suspended")
    engine.coordinator(ORCHESTRATOR_WORKFLOWS="").ready()

    assert [engine.resume(one, {"yes": True}).type for one in waiting] == ["process.resumed"] * 12
    waiting += [engine.start(WORKFLOW) for _ in range(6)]
    for process_id in waiting[:12]:
        engine.wait_for(process_id, "completed")


def resume(process_id: UUID) -> list[str]:
    return ["resume", str(process_id), "--input", '{"yes": true}']


def test_coordinators_of_both_versions_share_the_work(installations: MakeInstallation) -> None:
    """Issue 9.1: which of them takes a start, a result or what is due is chance; none fails or skips anything."""
    engine = make(installations)
    old, new = lay_out(engine, "v1", *V1), lay_out(engine, "v2", *V2)
    for code in (old, new):
        for program in (engine.coordinator(**code), engine.consumer(**code)):
            program.ready()

    for process_id in [engine.start(WORKFLOW) for _ in range(20)]:
        engine.wait_for(process_id, "completed")
        if ran(engine, process_id) != ["Start", *V2]:
            assert ran(engine, process_id) == ["Start", *V1]
            assert "and not with the registered one" in str(engine.log(process_id, "created")[0].note)


def test_a_process_whose_step_the_registered_plan_has_no_more_fails_with_words(installations: MakeInstallation) -> None:
    """Issue 9.1: by a program that has the registered plan, when the step is next."""
    engine = make(installations)
    old, new = lay_out(engine, "v1", *V2, gate="Reserve"), lay_out(engine, "v2", *V1)
    engine.consumer(**old).ready()
    before = engine.coordinator(**old).ready()
    process_id = engine.start(WORKFLOW)
    until(lambda: engine.value("SELECT claimed_by FROM processes"), "it has begun")
    before.stop()
    engine.coordinator(**new).ready()
    engine.open_gate("open")

    engine.wait_for(process_id, "failed")
    assert "it stands at step 'Check credit'" in str(engine.log(process_id, "failed")[0].failure)
