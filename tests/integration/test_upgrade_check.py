"""Before a deployment: which unfinished processes the new code would break, on a real database and by the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator import registry
from orchestrator.db.registration import register_workflow
from orchestrator.db.registration.catalogue import Catalogue
from orchestrator.db.session import Database
from orchestrator.engine.upgrade_check import Trouble
from orchestrator.errors import InvalidInputError
from orchestrator.forms import FormPage
from orchestrator.services import upgrade_check
from orchestrator.services.model_catalogue import CataloguePlan
from orchestrator.services.model_comparison import ModelComparison
from orchestrator.services.model_drift import Finding
from orchestrator.services.upgrade_check import MAX_FORMS, UpgradeReport, check_upgrade
from orchestrator.workflow import StepList, Workflow, inputstep, step
from tests.integration.cli_servers import FLOWS, Cli, project
from tests.integration.engine_bench import Bench, bench_of


@step("Reserve")
def reserve() -> None:
    """Do nothing."""


@step("Configure")
def configure() -> None:
    """Do nothing."""


@step("Reserve")
def reserve_port(port: int) -> None:
    """Do nothing."""


def made_of(*steps: object) -> Workflow:
    return Workflow("flow", "for tests", StepList(steps))  # type: ignore[arg-type]  # steps and blocks


flow_before = made_of(reserve, configure)


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    deploy(monkeypatch, flow_before)
    async with bench_of(database, amqp_url, monkeypatch, __name__, flow_before) as made:
        yield made


def deploy(monkeypatch: pytest.MonkeyPatch, *workflows: Workflow) -> None:
    """Make this program one with these workflows and no others."""
    monkeypatch.setattr(registry, "_instances", {})
    for one in workflows:
        monkeypatch.setitem(globals(), one.name, one)
        registry.LazyWorkflowInstance(__name__, one.name)


async def checked(bench: Bench) -> UpgradeReport:
    async with bench.database.transaction() as session:
        return await check_upgrade(session, models=False)


async def test_what_the_new_code_breaks_is_grouped_by_workflow_and_step_with_counts_and_ids(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_ids = [await bench.start("flow") for _ in range(3)]
    same = await checked(bench)
    assert (same.breaks, same.unfinished, list(same.groups), same.models) == (False, 3, [], None)

    deploy(monkeypatch, made_of(configure))
    (gone,) = (await checked(bench)).groups
    assert gone.finding.trouble is Trouble.STEP_GONE
    assert (gone.finding.workflow, gone.finding.step, gone.count) == ("flow", "Reserve", 3)
    assert gone.process_ids == process_ids

    deploy(monkeypatch, made_of(configure, reserve))
    (missed,) = (await checked(bench)).groups
    assert missed.finding.trouble is Trouble.MISSED, "the plan that the processes have is known from the database"
    assert "'Configure'" in missed.finding.what

    deploy(monkeypatch, made_of(reserve_port, configure))
    (lacks,) = (await checked(bench)).groups
    assert lacks.finding.trouble is Trouble.ARGUMENT

    deploy(monkeypatch)
    report = await checked(bench)
    assert [one.finding.trouble for one in report.groups] == [Trouble.WORKFLOW_GONE]

    registry.LazyWorkflowInstance("there.is.no.such.module", "flow")
    broken = await checked(bench)
    assert [one.finding.trouble for one in broken.groups] == [Trouble.WORKFLOW_BROKEN]
    assert "No module named 'there'" in broken.groups[0].finding.what

    await bench.database.pool.execute("UPDATE processes SET status = 'aborted'")
    assert (await checked(bench)).unfinished == 0


class ApprovalPage(FormPage):
    approved: bool


@inputstep("Approve")
def approve() -> type[FormPage]:
    return ApprovalPage


@inputstep("Approve")
def approve_badly() -> type[FormPage]:
    raise ValueError("no page today")


async def test_the_forms_of_suspended_steps_are_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(monkeypatch, made_of(approve))
    for _ in range(MAX_FORMS + 1):
        await bench.start("flow")
    assert not (await checked(bench)).breaks

    deploy(monkeypatch, made_of(approve_badly))
    (found,) = (await checked(bench)).groups
    assert (found.finding.trouble, found.finding.step, found.count) == (Trouble.FORM, "Approve", MAX_FORMS)
    assert "no page today" in found.finding.what


async def test_models_that_cannot_load_all_subscriptions_break_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def compare(_: AsyncSession, given: object, *, drop_values: bool) -> ModelComparison:
        del given, drop_values
        drift = [
            Finding("the resource type vlan of Port", "PortBlock needs a value, but there is none", 2, ("fill_values",))
        ]
        return ModelComparison(Catalogue(), CataloguePlan(Catalogue()), drift)

    monkeypatch.setattr(upgrade_check, "compare_models", compare)
    async with bench.database.transaction() as session:
        report = await check_upgrade(session)
    assert report.breaks
    assert report.models == [
        "the resource type vlan of Port: PortBlock needs a value, but there is none (2): fill_values"
    ]

    async def refuse(_: AsyncSession, given: object, *, drop_values: bool) -> ModelComparison:
        raise InvalidInputError("Node P needs a fixed input")

    monkeypatch.setattr(upgrade_check, "compare_models", refuse)
    async with bench.database.transaction() as session:
        refused = await check_upgrade(session)
    assert refused.models == ["Node P needs a fixed input ('orchestrator db migrate-domain-models')"]


@pytest.fixture
async def cli(database: Database, database_url: str, amqp_url: str, tmp_path: Path) -> Cli:
    def register(connection: Connection) -> None:
        for name in FLOWS:
            register_workflow(connection, name=name, target="SYSTEM", description=name)

    async with database.engine.begin() as connection:
        await connection.run_sync(register)
    return project(tmp_path, database_url, amqp_url)


def test_a_pipeline_learns_by_the_exit_code_whether_the_code_may_be_deployed(cli: Cli) -> None:
    process_id = cli.start("ask")
    assert cli("explain", process_id[:8]).stdout.startswith("waits for input of 'Approve' from NOC since ")
    assert cli.json("explain", process_id)["kind"] == "input"
    assert "1 unfinished process checked: nothing breaks" in cli("check").stdout

    code = (cli.folder / "flows.py").read_text()
    (cli.folder / "flows.py").write_text(code.replace('"Approve"', '"Agree"'))
    shown = cli("check", code=1).stdout
    assert "ask, at 'Approve'" in shown
    assert "breaks: the code no longer has this step" in shown
    assert f"(1 process: {process_id[:8]})" in shown
    assert "do: keep the step under this name" in shown
    found = cli.json("check", code=1)
    assert found["breaks"] is True
    assert found["findings"][0]["process_ids"] == [process_id]
    assert "the code of this program has no step 'Approve'" in cli("explain", process_id).stdout

    (cli.folder / "flows.py").write_text(code)
    assert cli.json("check")["findings"] == []
