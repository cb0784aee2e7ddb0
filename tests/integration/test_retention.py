"""B15: what a clean-up deletes, what it never deletes, and how it gets on with everything else that happens."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from orchestrator import registry
from orchestrator.coordinator.expiry import Expiry
from orchestrator.coordinator.metrics import Metrics
from orchestrator.db.session import Database
from orchestrator.errors import ProcessFailureError
from orchestrator.workflow import KEEP_FOREVER, StepList, begin, step
from orchestrator.workflows.shipped import load_workflows
from orchestrator.workflows.tasks import cleanup_tasks_log
from orchestrator.workflows.utils import task
from tests.integration.finished_tasks import add, clean_up, clean_up_records, left
from tests.integration.waiting import until

UNFINISHED = (
    "created",
    "running",
    "resumed",
    "suspended",
    "waiting",
    "awaiting_callback",
    "failed",
    "api_unavailable",
    "inconsistent_data",
)


@step("a")
async def _a() -> None:
    """Do nothing."""


@task("Something")
def some() -> StepList:
    """Be kept for as long as the setting says."""
    return begin >> _a


@task("Something short", retention=timedelta(hours=1))
def brief() -> StepList:
    """Be kept for an hour."""
    return begin >> _a


@task("Something important", retention=KEEP_FOREVER)
def precious() -> StepList:
    """Be kept for ever."""
    return begin >> _a


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """Let this program know the tasks of this module, and only these."""
    monkeypatch.setattr(registry, "_instances", {})
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", database_url)
    monkeypatch.setenv("ORCHESTRATOR_AMQP_URL", "amqp://guest:guest@localhost/")
    load_workflows(())
    for one in (some, brief, precious):
        registry.LazyWorkflowInstance(__name__, one.name)


async def test_finished_tasks_are_deleted_with_all_that_belongs_to_them_once_their_time_is_over(
    database: Database,
) -> None:
    """B15: three days by default; completed and aborted ones."""
    await add(database, 250, status="completed", days=3.01)
    await add(database, 7, status="aborted", days=100)
    kept = await add(database, 3, days=2.99)
    for status in UNFINISHED:
        kept += await add(database, status=status, days=100)
    kept += await add(database, 2, is_task=False, days=1000)

    found = await clean_up(database)

    assert await left(database) == set(kept)
    assert found == {
        "deleted_tasks": 257,
        "deleted_by_workflow": {"some": 257},
        "kept_tasks": 0,
        "left_tasks": {},
        "workflows_without_code": [],
    }
    assert await database.pool.fetchval("SELECT count(*) FROM deleted_processes") == 0


async def test_a_task_may_say_itself_for_how_long_it_is_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(database, workflow="brief", days=0.1)
    kept = await add(database, workflow="precious", days=10_000)
    kept += await add(database, workflow="some", days=9)
    await add(database, workflow="some", days=11)
    monkeypatch.setenv("TASK_LOG_RETENTION_DAYS", "10")

    assert (await clean_up(database))["deleted_by_workflow"] == {"brief": 1, "some": 1}
    assert await left(database) == set(kept)


async def test_zero_days_deletes_what_had_ended_when_the_clean_up_began(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(database, 3, days=0.0001)
    monkeypatch.setenv("TASK_LOG_RETENTION_DAYS", "0")
    assert (await clean_up(database))["deleted_tasks"] == 3


async def test_tasks_whose_code_this_program_lacks_are_kept_unless_the_workflow_was_removed(database: Database) -> None:
    """The code may say that they are kept for ever."""
    kept = await add(database, 2, workflow="of_another_program", days=100)
    await add(database, 2, workflow="removed", days=100)
    await database.pool.execute("UPDATE workflows SET deleted_at = now() WHERE name IN ('removed', 'precious')")
    forever = await add(database, workflow="precious", days=100)
    await database.pool.execute("UPDATE workflows SET deleted_at = now() WHERE name = 'precious'")

    found = await clean_up(database)

    assert found["workflows_without_code"] == ["of_another_program"]
    assert await left(database) == {*kept, *forever}


async def test_a_task_that_has_changed_a_subscription_is_kept_with_its_history(database: Database) -> None:
    """B1. That a task has only looked at one, as a validation does, keeps nothing."""
    changed, looked, holds, created_only = await add(database, 4)
    subscription = await _add_subscription(database)
    await _link(database, subscription, changed, looked, holds)
    await _change(database, subscription, changed)
    await database.pool.execute(
        "UPDATE subscriptions SET insync = false, locked_by = $1 WHERE subscription_id = $2", holds, subscription
    )

    found = await clean_up(database)

    assert found["kept_tasks"] == 1
    assert found["left_tasks"] == {"hold a subscription out of sync": 1}
    assert await left(database) == {changed, holds}
    assert not {looked, created_only} & await left(database)
    assert await database.pool.fetchval("SELECT process_id FROM subscription_changes") == changed

    await database.pool.execute("UPDATE subscriptions SET insync = true, locked_by = NULL")
    again = await clean_up(database)
    assert (again["deleted_tasks"], again["kept_tasks"]) == (1, 0), "what is kept is not looked at again"
    assert await left(database) == {changed}


async def test_a_task_stays_until_the_broker_has_confirmed_its_events(database: Database) -> None:
    (waiting,) = await add(database, announced=1)
    await add(database, 2)
    found = await clean_up(database)
    assert found["left_tasks"] == {"have unconfirmed events": 1}
    assert await left(database) == {waiting}

    await database.pool.execute("UPDATE processes SET announced = sequence")
    assert (await clean_up(database))["deleted_tasks"] == 1


async def test_parents_stay_while_a_child_is_unfinished_and_children_while_their_parent_is(database: Database) -> None:
    """A parent's step that runs again finds the children that it has started before by their rows."""
    (parent,) = await add(database)
    finished, unfinished = await add(database), await add(database, status="failed")
    (busy,) = await add(database, status="suspended")
    children = await add(database, 2)
    alone = await add(database, 3)
    adopt = "UPDATE processes SET parent_id = $1 WHERE process_id = ANY($2::uuid[])"
    await database.pool.execute(adopt, parent, [*finished, *unfinished])
    await database.pool.execute(adopt, busy, children)
    await database.pool.execute(adopt, uuid4(), alone[:1])

    found = await clean_up(database)

    assert found["left_tasks"] == {
        "have started a process that has not ended": 1,
        "were started by a process that has not ended": 2,
    }
    assert await left(database) == {parent, *unfinished, busy, *children}

    await database.pool.execute("UPDATE processes SET status = 'aborted'")
    assert (await clean_up(database))["left_tasks"] == {}
    assert await left(database) == set()


async def test_two_clean_ups_at_the_same_time_share_the_work(database: Database) -> None:
    await add(database, 3000)
    first, second = await asyncio.gather(clean_up(database), clean_up(database))
    assert first["deleted_tasks"] + second["deleted_tasks"] == 3000
    assert await left(database) == set()


async def test_a_task_that_a_person_is_changing_is_left_for_the_next_clean_up_and_nobody_waits(
    database: Database,
) -> None:
    (noted, *_) = await add(database, 500)
    async with database.transaction() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("UPDATE processes SET note = 'look at this' WHERE process_id = $1", (noted,))
        assert (await clean_up(database))["deleted_tasks"] == 499
        assert await left(database) == {noted}
    assert (await clean_up(database))["deleted_tasks"] == 1


async def test_batches_get_smaller_until_the_server_has_time_for_them(database: Database) -> None:
    """A statement that deletes more than four tasks is cancelled, as by the role's statement_timeout."""
    await add(database, 40)
    await database.pool.execute(
        """CREATE FUNCTION takes_too_long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF (SELECT count(*) FROM gone) > 4 THEN
               RAISE query_canceled USING MESSAGE = 'canceling statement due to statement timeout';
             END IF;
             RETURN NULL;
           END $$"""
    )
    await database.pool.execute(
        "CREATE TRIGGER slow AFTER DELETE ON processes REFERENCING OLD TABLE AS gone"
        " FOR EACH STATEMENT EXECUTE FUNCTION takes_too_long()"
    )
    assert (await clean_up(database))["deleted_tasks"] == 40
    assert await left(database) == set()


async def test_a_clean_up_that_cannot_go_on_fails_with_the_reason_and_what_is_left_and_a_retry_goes_on(
    database: Database,
) -> None:
    await add(database, 300)
    await database.pool.execute(
        "UPDATE processes SET note = 'slow' WHERE process_id IN (SELECT process_id FROM processes ORDER BY rested_at LIMIT 200)"
    )
    await _slow_down(database, "CASE WHEN OLD.note IS NULL THEN 60 ELSE 0 END")
    await _limit(database, "500ms")

    with pytest.raises(ProcessFailureError) as caught:
        await clean_up(database)

    text = str(caught.value)
    assert "cancelled a batch of a single row 3 times: canceling statement due to statement timeout" in text
    assert "200 tasks were deleted, and 100 that have expired are left, the oldest for 24 h 00 min" in text
    assert "a retry goes on with what is left" in text
    assert isinstance(caught.value.details, dict)
    assert {**caught.value.details, "oldest_expired_for": 0} == {"deleted": 200, "left": 100, "oldest_expired_for": 0}
    assert len(await left(database)) == 100

    await database.pool.execute("DROP TRIGGER slow ON processes")
    assert (await clean_up(database))["deleted_tasks"] == 100


async def test_a_clean_up_that_is_cancelled_keeps_what_it_has_deleted_and_holds_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that stops cancels its steps; the next one goes on."""
    monkeypatch.setattr(cleanup_tasks_log, "FIRST_SIZE", 1)
    await add(database, 400)
    await _slow_down(database, "0.02")
    running = asyncio.create_task(clean_up(database))

    async def has_begun() -> bool:
        return len(await left(database)) < 400

    await until(has_begun, "a batch was committed")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    some_left = await left(database)
    assert 0 < len(some_left) < 400

    await database.pool.execute("DROP TRIGGER slow ON processes")
    assert (await clean_up(database))["deleted_tasks"] == len(some_left)


async def test_no_statement_of_a_clean_up_reads_a_whole_table(database: Database) -> None:
    """Neither those that it sends nor those by which PostgreSQL deletes what belongs to the tasks."""
    await add(database, 6000, is_task=False, days=50)
    await add(database, 300, days=50)
    subscription = await _add_subscription(database)
    processes = [row[0] for row in await database.pool.fetch("SELECT process_id FROM processes ORDER BY is_task")]
    await _link(database, subscription, *processes)
    await _change(database, subscription, *processes[:5900])
    large = [
        "processes",
        "process_steps",
        "process_commands",
        "callbacks",
        "processes_subscriptions",
        "subscription_changes",
    ]
    await database.pool.execute(f"ANALYZE {', '.join(large)}")
    before = await _scans(database, large)

    assert (await clean_up(database))["deleted_tasks"] == 300

    assert await _scans(database, large) == before


async def test_monitoring_sees_for_how_long_the_oldest_task_has_been_past_its_time(database: Database) -> None:
    metrics = Metrics()
    expiry = Expiry(database, metrics, days=3)
    await expiry.look()
    assert metrics.registry.get_sample_value("orchestrator_expired_tasks_seconds") == 0
    await add(database, workflow="brief", days=1)
    await add(database, workflow="some", days=3.5)

    await expiry.look()

    seconds = metrics.registry.get_sample_value("orchestrator_expired_tasks_seconds")
    assert seconds is not None
    assert 23 * 3600 <= seconds < 24 * 3600, "of the one that is to be kept for an hour"


async def test_old_records_of_other_kinds_are_deleted(database: Database) -> None:
    await database.pool.execute(
        "INSERT INTO deleted_processes SELECT gen_random_uuid(), 'some', 'completed', 'me', now(), 'me',"
        " now() - n * interval '24 hours' FROM generate_series(0, 400) n"
    )
    schedule = await _add_schedule(database)
    await database.pool.execute(
        "INSERT INTO schedule_slots (schedule_id, slot, result, at) SELECT $1, now() - n * interval '12 hours', 'started',"
        " now() - n * interval '12 hours' FROM generate_series(0, 3000) n",
        schedule,
    )
    before = await database.pool.fetchrow("SELECT * FROM schedules")

    found = await clean_up_records(database)

    assert found == {"deleted_records": {"schedule_slots": 2941, "deleted_processes": 36}}
    assert await database.pool.fetchrow("SELECT * FROM schedules") == before, "what is settled stays settled"
    assert (await clean_up_records(database))["deleted_records"] == {"schedule_slots": 0, "deleted_processes": 0}


async def _add_subscription(database: Database) -> UUID:
    await database.pool.execute("INSERT INTO products (name, product_type) VALUES ('Node', 'Node')")
    subscription = uuid4()
    await database.pool.execute(
        "INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)"
        " SELECT $1, product_id, 'us', 'a node', 'active', true FROM products",
        subscription,
    )
    return subscription


async def _link(database: Database, subscription: UUID, *processes: UUID) -> None:
    await database.pool.execute(
        "INSERT INTO processes_subscriptions (process_id, subscription_id) SELECT unnest($1::uuid[]), $2",
        list(processes),
        subscription,
    )


async def _change(database: Database, subscription: UUID, *processes: UUID) -> None:
    await database.pool.execute(
        "INSERT INTO subscription_changes (subscription_id, version, process_id, author, changes)"
        " SELECT $2, 2, unnest($1::uuid[]), 'me', '{}'",
        list(processes),
        subscription,
    )


async def _add_schedule(database: Database) -> UUID:
    schedule: UUID = await database.pool.fetchval(
        "INSERT INTO schedules (name, origin, workflow, inputs, trigger, enabled, missed, missed_limit, overlap, jitter,"
        " settled_through, zone_rules, created_by, changed_by)"
        " VALUES ('nightly', 'person', 'some', '[]', '{}', true, 'once', 1, 'skip', 0, now(), 'x', 'me', 'me')"
        " RETURNING schedule_id"
    )
    return schedule


async def _slow_down(database: Database, seconds: str) -> None:
    """Let each deletion of a process take some time; ``seconds`` is SQL over ``OLD``."""
    await database.pool.execute(
        "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({seconds}); RETURN OLD; END $$;"
        " CREATE TRIGGER slow BEFORE DELETE ON processes FOR EACH ROW EXECUTE FUNCTION be_slow()"
    )


async def _limit(database: Database, longest: str) -> None:
    """Set the statement_timeout that sessions of steps have from now on."""
    name = await database.pool.fetchval("SELECT current_database()")
    await database.pool.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '{longest}'")
    await database.engine.dispose()


async def _scans(database: Database, tables: list[str]) -> dict[str, int]:
    """Return how often each table was read as a whole."""
    await database.engine.dispose()
    async with database.pool.acquire() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        rows = await connection.fetch(
            "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname = ANY($1::text[])", tables
        )
    return {row["relname"]: row["seq_scan"] for row in rows}
