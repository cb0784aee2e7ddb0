"""A workflow starts only when code and database both know it."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation

CASES = {
    "no_such_workflow": ("NotFoundError", "neither in the code nor in the database"),
    "only_in_code": ("NotFoundError", "registered in the code but not in the database"),
    "only_in_database": ("NotFoundError", "registered in the database but not in the code"),
    "removed": ("NotFoundError", "not in the database (or was removed there)"),
    "broken": (
        "DefinitionError",
        (
            "the module 'tests.acceptance.workflows.broken' cannot be imported: RuntimeError: "
            "this module is broken on purpose"
        ),
    ),
    "no_such_function": ("DefinitionError", "has no workflow 'no_such_function'"),
    "twins": ("DefinitionError", "has two steps named 'Twin'"),
}


@pytest.mark.parametrize("workflow", CASES)
def test_a_start_is_refused_that_names_the_missing_half(engine: Installation, workflow: str) -> None:
    """B13: by message and on the command line, before any row exists; the engine, started with all of them, goes on."""
    kind, text = CASES[workflow]
    answer = engine.client.ask("workflow.start", {"workflow": workflow})
    assert answer.type == "workflow.refused"
    assert answer.body["error"] == kind
    assert text in answer.body["detail"]

    refused = engine.command("start", workflow, "--json", exit_code=1)
    assert text in refused.stderr
    assert "Traceback" not in refused.stderr
    assert engine.value("SELECT count(*) FROM processes WHERE workflow = $1", workflow) == 0
    engine.finish("one_step")


PROJECT = """
from orchestrator.workflow import begin, step, workflow
from orchestrator.workflows import LazyWorkflowInstance

LazyWorkflowInstance(__name__, "new_one")

@step("Only")
async def only():
    return {"only": 1}

@workflow("A new workflow")
def new_one():
    return begin >> only
"""


def test_the_difference_between_code_and_database_becomes_a_migration(installations: MakeInstallation) -> None:
    """B13, B23: `db migrate-workflows` writes it, `db upgrade` applies it, and the workflow starts; removing works, too."""
    engine = installations(ORCHESTRATOR_WORKFLOWS="project_of_one", ORCHESTRATOR_MIGRATIONS="project")
    module = engine.folder / "project_of_one.py"
    module.write_text(PROJECT)
    for program in (engine.coordinator(), engine.consumer()):
        program.ready()
    (known,) = [one for one in engine.json("workflows") if one["name"] == "new_one"]
    assert (known["name"], known["in_code"], known["in_database"]) == ("new_one", True, False)
    assert "not in the database" in engine.command("start", "new_one", exit_code=1).stderr

    engine.command("db", "migrate-workflows", "--message", "the first")
    assert len(list((engine.folder / "project").glob("*.py"))) == 1
    engine.command("db", "upgrade")
    engine.finish("new_one")
    engine.command("db", "migrate-workflows", exit_code=None)
    assert len(list((engine.folder / "project").glob("*.py"))) == 1, "no difference, no migration"

    module.write_text("")
    engine.command("db", "migrate-workflows", "--message", "gone")
    engine.command("db", "upgrade")
    assert "was removed there" in engine.client.ask("workflow.start", {"workflow": "new_one"}).body["detail"]


def test_a_module_that_cannot_be_imported_is_named_when_a_program_starts(installations: MakeInstallation) -> None:
    """B13: the module of ORCHESTRATOR_WORKFLOWS itself is broken: one line that names it, exit code 1."""
    engine = installations()
    (engine.folder / "nonsense.py").write_text("1 / 0\n")
    for program, module, text in (
        ("coordinator", "nonsense", "ZeroDivisionError"),
        ("consumer", "there_is_none", "ModuleNotFoundError"),
    ):
        outcome = engine.command(program, ORCHESTRATOR_WORKFLOWS=module, exit_code=1)
        (line,) = outcome.stderr.strip().splitlines()
        assert f"'{module}' of ORCHESTRATOR_WORKFLOWS cannot be imported" in line
        assert text in line
