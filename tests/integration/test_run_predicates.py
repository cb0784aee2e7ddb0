"""The run predicate that ships, on a real database: which processes stand in its way, and starts at the same moment."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from orchestrator import registry
from orchestrator.db.session import Database
from orchestrator.engine.schedule import Overlap
from orchestrator.errors import FormIncompleteError, PredicateFailedError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.services.start import PreparedStart, StartRequest, prepare_start, recheck_start, start
from orchestrator.types import ProcessStatus
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.predicates import no_uncompleted_instance
from orchestrator.workflows.utils import task
from tests.integration.engine_bench import LIMITS
from tests.integration.schedule_rounds import Rounds


class Depth(FormPage):
    depth: int


def ask_depth() -> FormGenerator:
    page = yield Depth
    return page.model_dump()


@step("Tidy")
async def tidy() -> None: ...


@task("Tidy up, one at a time", run_predicate=no_uncompleted_instance)
def tidy_alone() -> StepList:
    return begin >> tidy


@task("Tidy up, and say how deep", initial_input_form=ask_depth, run_predicate=no_uncompleted_instance)
def tidy_deeply() -> StepList:
    return begin >> tidy


@pytest.fixture(autouse=True)
async def workflows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    for name in ("tidy_alone", "tidy_deeply"):
        registry.LazyWorkflowInstance(__name__, name)
        await database.pool.execute("INSERT INTO workflows (name, target, is_task) VALUES ($1, 'SYSTEM', true)", name)


async def begin_one(
    database: Database, workflow: str = "tidy_alone", *pages: dict[str, int], key: str | None = None
) -> UUID:
    async with database.transaction() as session:
        return (await start(session, StartRequest(workflow, pages, key=key), LIMITS)).process_id


async def set_status(database: Database, process_id: UUID, status: str) -> None:
    await database.pool.execute("UPDATE processes SET status = $2 WHERE process_id = $1", process_id, status)


@pytest.mark.parametrize("status", [one for one in ProcessStatus if not one.is_final])
async def test_a_process_that_may_still_move_refuses_the_next_start_and_is_named(
    database: Database, status: ProcessStatus
) -> None:
    first = await begin_one(database)
    await set_status(database, first, status)
    with pytest.raises(PredicateFailedError, match="may not run now") as refusal:
        await begin_one(database)
    assert f"{first} ({status})" in str(refusal.value)
    assert await database.pool.fetchval("SELECT count(*) FROM processes") == 1


@pytest.mark.parametrize("status", [one for one in ProcessStatus if one.is_final])
async def test_finished_processes_and_those_of_other_workflows_are_in_nobodys_way(
    database: Database, status: ProcessStatus
) -> None:
    await set_status(database, await begin_one(database), status)
    await begin_one(database, "tidy_deeply", {"depth": 3})
    await begin_one(database)


async def test_of_many_that_are_left_the_oldest_are_named_and_the_others_counted(database: Database) -> None:
    made = []
    for _ in range(5):
        made.append(await begin_one(database))
        await set_status(database, made[-1], "completed")
    for process_id in made:
        await set_status(database, process_id, "failed")
    with pytest.raises(PredicateFailedError) as refusal:
        await begin_one(database)
    assert [str(one) in str(refusal.value) for one in made] == [True, True, True, False, False]
    assert str(refusal.value).endswith("and 2 more")


async def test_of_ten_starts_at_once_one_succeeds_and_the_others_name_it(database: Database) -> None:
    outcomes = await asyncio.gather(*(begin_one(database) for _ in range(10)), return_exceptions=True)
    (started,) = [one for one in outcomes if isinstance(one, UUID)]
    refused = [str(one) for one in outcomes if isinstance(one, PredicateFailedError)]
    assert len(refused) == 9
    assert all(str(started) in text for text in refused)


async def test_the_same_request_sent_ten_times_at_once_is_answered_with_its_process(database: Database) -> None:
    key = str(uuid4())
    outcomes = await asyncio.gather(*(begin_one(database, key=key) for _ in range(10)))
    assert len(set(outcomes)) == 1


async def test_a_start_that_ends_at_its_form_does_not_refuse_the_next(database: Database) -> None:
    with pytest.raises(FormIncompleteError):
        await begin_one(database, "tidy_deeply")
    await begin_one(database, "tidy_deeply", {"depth": 3})


async def test_a_start_that_was_prepared_earlier_is_decided_again_before_it_is_stored(database: Database) -> None:
    """As schedules start: authors' code has run in an earlier transaction, and another start has come in between."""
    async with database.transaction() as session:
        prepared = await prepare_start(session, StartRequest("tidy_alone"), LIMITS)
    assert isinstance(prepared, PreparedStart)
    first = await begin_one(database)
    with pytest.raises(PredicateFailedError, match=str(first)):
        async with database.transaction() as session:
            await recheck_start(session, prepared)


async def test_a_schedule_shows_which_process_has_refused_its_slot_and_goes_on_with_the_next(
    database: Database,
) -> None:
    """B14: refused starts are seen where people look for them, and do not stop later slots."""
    rounds = Rounds(database)
    schedule_id = await rounds.add(workflow="tidy_alone", overlap=Overlap.ALLOW)
    await rounds.at("2026-11-25T12:00:01")
    first = await database.pool.fetchval("SELECT process_id FROM processes")
    await rounds.at("2026-11-25T13:00:01")
    refused = await database.pool.fetchrow("SELECT * FROM schedules WHERE schedule_id = $1", schedule_id)
    assert refused is not None
    assert (refused["last_result"], refused["broken"]) == ("refused", None)
    assert f"{first} (running)" in refused["last_reason"]
    await set_status(database, first, "aborted")
    await rounds.at("2026-11-25T14:00:01")
    assert await database.pool.fetchval("SELECT count(*) FROM processes") == 2


async def test_two_schedules_of_one_workflow_that_are_due_together_start_it_once(database: Database) -> None:
    """Each start is prepared in one transaction and stored in another: the predicate is asked in both."""
    rounds = Rounds(database)
    for name in ("one", "other"):
        await rounds.add(name, workflow="tidy_alone")
    await rounds.at("2026-11-25T12:00:01", rounds.make_scheduler(), rounds.make_scheduler())
    results = await database.pool.fetch("SELECT last_result FROM schedules ORDER BY last_result")
    assert [row["last_result"] for row in results] == ["refused", "started"]
    assert await database.pool.fetchval("SELECT count(*) FROM processes") == 1
