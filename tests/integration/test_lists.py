"""Pages of processes and subscriptions on a real database."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.db.lists.page import FEW
from orchestrator.db.lists.processes import COLUMNS as PROCESS_COLUMNS
from orchestrator.db.lists.processes import page_processes
from orchestrator.db.lists.request import read_request
from orchestrator.db.lists.subscriptions import COLUMNS as SUBSCRIPTION_COLUMNS
from orchestrator.db.lists.subscriptions import page_subscriptions
from orchestrator.db.processes.counts import count_statuses
from orchestrator.db.session import Database
from orchestrator.errors import InvalidQueryError, QueryTimeoutError
from tests.integration.subscription_rows import Rows

HIDDEN = ("state", "state.__callback_token", "api_key_hash", "__class__", "request_key", "id;pid", "words", "1", "")
"""Names that no list may know: what a list can be filtered or sorted by, it gives away."""

BAD_TEXTS = (
    "'",
    "(",
    "a & | b",
    "a:*",
    "!",
    "\\",
    "%",
    "_",
    '"unclosed',
    "🚀",
    "((a|b",
    "a:b:c",
    "--",
    "<->",
    "''",
    ":*",
)


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


async def processes(database: Database, **asked: Any) -> list[dict[str, Any]]:
    async with database.transaction() as session:
        return list((await page_processes(session, read_request(**asked))).rows)


async def process_ids(database: Database, **asked: Any) -> set[UUID]:
    return {row["process_id"] for row in await processes(database, **asked)}


async def subscription_ids(database: Database, **asked: Any) -> set[UUID]:
    async with database.transaction() as session:
        return {row["subscription_id"] for row in (await page_subscriptions(session, read_request(**asked))).rows}


async def fill(database: Database, rows: Rows, number: int) -> None:
    """Insert processes and subscriptions in one transaction each, so that all have one time."""
    product = await rows.product("Node")
    workflow = await rows.workflow("modify_node", "MODIFY", product)
    await database.pool.execute(
        "INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)"
        " SELECT gen_random_uuid(), $1, 'acme', 'a node', 'active', true FROM generate_series(1, $2::int)",
        product,
        number,
    )
    await database.pool.execute(
        "INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, entered, attempt, sequence,"
        " failures, lost, rewinds, state, started_by, actor)"
        " SELECT gen_random_uuid(), $1, 'modify_node', false, (ARRAY['completed', 'failed', 'running'])[1 + n % 3], 0, false,"
        " 0, 0, 0, 0, 0, '{}', 'ana', 'ana' FROM generate_series(1, $2::int) n",
        workflow,
        number,
    )
    # A database that is used again may have statistics of the time when it was empty: plans that are made by these take seconds.
    await database.pool.execute("ANALYZE processes, subscriptions")


async def test_pages_together_are_all_rows_each_once_although_all_began_at_the_same_time(
    database: Database, rows: Rows
) -> None:
    """The unique key ends every order, also one by columns that all rows share, and the rank of a search."""
    await fill(database, rows, 500)

    for asked in (
        {},
        {"sort": ["startedAt,desc"]},
        {"sort": ["startedAt,asc"]},
        {"sort": ["last_status,asc"]},
        {"sort": ["last_modified_at,desc"]},
        {"sort": ["last_modified_at,asc"]},
        {"sort": ["workflow_name,desc,created_by,asc"]},
        {"query": "ana"},
        {"query": "modify"},
    ):
        found = [
            row["process_id"]
            for first in range(0, 500, 90)
            for row in await processes(database, rows=f"{first},{first + 89}", **asked)
        ]
        assert len(found) == len(set(found)) == 500, asked
    for asked in (
        {},
        {"sort": ["status,asc"]},
        {"sort": ["start_date,desc"]},
        {"sort": ["tag,asc"]},
        {"query": "node"},
    ):
        async with database.transaction() as session:
            pages = [
                await page_subscriptions(session, read_request(rows=f"{first},{first + 89}", **asked))
                for first in range(0, 500, 90)
            ]
        found = [row["subscription_id"] for page in pages for row in page.rows]
        assert len(found) == len(set(found)) == 500, asked
        assert {page.total for page in pages} == {500}


async def test_processes_are_sorted_by_each_column_in_both_directions(database: Database, rows: Rows) -> None:
    for number in range(6):
        workflow = await rows.workflow(
            f"modify_{9 - number}", "MODIFY" if number % 2 else "CREATE", is_task=number % 3 == 0
        )
        status = ("running", "completed", "failed")[number % 3]
        one = await rows.process(workflow, status, started_by=f"user {number * 7 % 5}")
        await database.pool.execute(
            "UPDATE processes SET updated_at = now() - $2 * interval '1 hour' WHERE process_id = $1",
            one,
            number * 5 % 6,
        )

    for name in PROCESS_COLUMNS.sorts:
        for direction in ("asc", "desc"):
            found = [row[name] for row in await processes(database, sort=[f"{name},{direction}"])]
            assert found == sorted(found, reverse=direction == "desc"), (name, direction)
            assert len(found) == 6
            window = [row[name] for row in await processes(database, sort=[f"{name},{direction}"], rows="2,3")]
            assert window == found[2:4]


async def test_processes_are_filtered(database: Database, rows: Rows) -> None:
    node, port = await rows.product("Node 10-G"), await rows.product("Port")
    create, check = await rows.workflow("create_node", "CREATE"), await rows.workflow("check", "SYSTEM", is_task=True)
    subscriptions = [
        await rows.subscription(product, customer=customer) for product, customer in ((node, "Acme"), (port, "Beta"))
    ]
    one = await rows.process(create, "failed", subscriptions[0], started_by="Ana@example.org")
    two = await rows.process(create, "completed", subscriptions[1], started_by="bob")
    three = await rows.process(check, "running", started_by="100%_bob")
    await database.pool.execute("UPDATE processes SET note = 'see ticket-17' WHERE process_id = $1", two)
    cases: dict[str, set[UUID]] = {
        "status,Failed": {one},
        "last_status,failed-running": {one, three},
        "lastStatus,failed|running": {one, three},
        "status,!failed": {two, three},
        "is_task,true": {three},
        "isTask,!true": {one, two},
        "workflow_name,CREATE_NODE": {one, two},
        "workflow_name,create*": {one, two},
        "workflow_name,create": set(),
        "workflow_target,CREATE|SYSTEM": {one, two, three},
        "created_by,ana@EXAMPLE.org": {one},
        "created_by,ana": set(),
        "created_by,100%_bob": {three},
        "created_by,%bob": set(),
        "created_by,b_b": set(),
        "created_by,bo*": {two},
        "created_by,bob|ana@example.org": {one, two},
        "note,ticket": {two},
        "note,!ticket": {one, three},
        f"process_id,{one}": {one},
        f"process_id,{str(two)[:9]}|{three}": {two, three},
        f"subscription_id,{subscriptions[0]}": {one},
        "product,node 10-G": {one},
        f"product_id,{port}": {two},
        "product,Port-Node": {two},
        "tag,node": {one, two},
        "customer_id,acme": {one},
        "customer_id,!acme": {two, three},
        "status,failed,created_by,bob": set(),
        "started_at,>=2020-01-01T00:00:00+01:00": {one, two, three},
        "started_at_lt,2020-01-01T00:00:00Z": set(),
        "last_modified_at,>2020-01-01T00:00:00Z": {one, two, three},
        "assignee,system": {one, two, three},
    }

    for written, expected in cases.items():
        assert await process_ids(database, filters=[written]) == expected, written


async def test_subscriptions_are_filtered(database: Database, rows: Rows) -> None:
    node, port = await rows.product("Node"), await rows.product("Port")
    one = await rows.subscription(node, status="active", customer="Acme-1", description="node ams-1 50%")
    two = await rows.subscription(port, status="terminated", insync=False, customer="beta", description="port of ams_1")
    three = await rows.subscription(port, status="initial", customer="beta", description="another")
    await database.pool.execute(
        "UPDATE subscriptions SET note = 'ask Ana first', start_date = '2026-01-01T00:00:00Z' WHERE subscription_id = $1",
        one,
    )
    cases: dict[str, set[UUID]] = {
        "status,Active-Initial": {one, three},
        "status,!terminated": {one, three},
        "insync,false": {two},
        "product,node": {one},
        "product,!node": {two, three},
        "tags,NODE": {one, two, three},
        "customer_id,acme-1": {one},
        "description,ams": {one, two},
        "description,!ams": {three},
        "note,ana": {one},
        "note,!ana": {two, three},
        "description,ana": set(),
        "start_date,<2026-06-01T00:00:00Z": {one},
        "start_date_gte,2026-06-01T00:00:00Z": set(),
        f"subscriptionId,{one}|{two}": {one, two},
    }

    for written, expected in cases.items():
        assert await subscription_ids(database, filters=[written]) == expected, written


async def test_search_texts_find_words_in_any_order_and_case(database: Database, rows: Rows) -> None:
    node, port = await rows.product("Node"), await rows.product("Port")
    await database.pool.execute("UPDATE products SET tag = '', product_type = name")
    create, check = await rows.workflow("create_node", "CREATE"), await rows.workflow("check", "SYSTEM", is_task=True)
    first = await rows.subscription(node, customer="Acme", description="the node AMS-1 (50%) at site 7")
    second = await rows.subscription(
        port, status="terminated", customer="Beta", description="port of the 7th site", insync=False
    )
    one = await rows.process(create, "failed", first, started_by="ana@example.org")
    two = await rows.process(create, "completed", second, started_by="bob")
    three = await rows.process(check, "running", started_by="the-scheduler")
    cases: dict[str, tuple[set[UUID], set[UUID]]] = {
        "SITE node": ({one, two}, {first}),
        "node site": ({one, two}, {first}),
        "ams-1": ({one}, {first}),
        "ams-2": (set(), set()),
        '"site 7"': ({one}, {first}),
        '"7 site"': (set(), set()),
        "ac*": ({one}, {first}),
        "ac": (set(), set()),
        "%": ({one}, {first}),
        "_": (set(), set()),
        "the": ({one, two, three}, {first, second}),
        "-site": ({three}, set()),
        "the -node": ({three}, {second}),
        "port": ({two}, {second}),
        "completed": ({two}, set()),
        "terminated": (set(), {second}),
        "status:terminated": (set(), {second}),
        "status:(failed|running)": ({one, three}, set()),
        "insync:false": (set(), {second}),
        "workflowName:create*": ({one, two}, set()),
        "createdBy:bob": ({two}, set()),
        "description:site": (set(), {first, second}),
        "-customer_id:beta": ({one, three}, {first}),
        f"{str(one)[:8]}": ({one}, set()),
        f"{first}": ({one}, {first}),
        "": ({one, two, three}, {first, second}),
    }

    for written, (found, subscriptions) in cases.items():
        # A name that only the other list has is a word like any other.
        if not written.startswith(("status:(", "description", "workflowName", "createdBy")) or found:
            assert await process_ids(database, query=written) == found, ("processes", written, one, two, three)
        if not written.startswith(("status:(", "workflowName", "createdBy")):
            assert await subscription_ids(database, query=written) == subscriptions, (
                "subscriptions",
                written,
                first,
                second,
            )


@pytest.mark.parametrize("written", BAD_TEXTS)
async def test_no_search_text_is_a_syntax_error(database: Database, rows: Rows, written: str) -> None:
    await rows.process(
        await rows.workflow("check", "SYSTEM"), "failed", await rows.subscription(await rows.product("Node"))
    )

    for query in (written, f"-{written}", f"description:{written}", f"created_by:{written}", f"product:{written}"):
        assert await process_ids(database, query=query) is not None
        assert await subscription_ids(database, query=query) is not None
    for name in ("created_by", "product", "workflow_name", "customer_id") if written != "!" else ():
        assert await process_ids(database, filters=[f"{name},{written}"]) == set()


@pytest.mark.parametrize("name", HIDDEN)
async def test_a_name_that_no_list_has_is_refused_with_those_that_it_has(database: Database, name: str) -> None:
    for page, columns in ((page_processes, PROCESS_COLUMNS), (page_subscriptions, SUBSCRIPTION_COLUMNS)):
        async with database.transaction() as session:
            with pytest.raises(InvalidQueryError, match=columns.key.removeprefix("p.").removeprefix("s.")) as refused:
                await page(session, read_request(filters=[f"{name},a"]))
            assert refused.value.allowed == sorted(columns.filters)
            with pytest.raises(InvalidQueryError) as refused:
                await page(session, read_request(sort=[f"{name},asc"]))
            assert refused.value.allowed == sorted(columns.sorts)


@pytest.mark.parametrize(
    "written",
    [
        "status,nonsense",
        "status,",
        "is_task,maybe",
        "process_id,xyz",
        "started_at,>=2026-01-01",
        "started_at,>=2026-01-01T00:00:00",
        "started_at,>=2026-01-01T00:00:00 02:00",
        "started_at,1",
        "created_by," + "|".join(map(str, range(300))),
    ],
)
async def test_a_value_that_none_can_have_is_refused(database: Database, written: str) -> None:
    async with database.transaction() as session:
        with pytest.raises(InvalidQueryError):
            await page_processes(session, read_request(filters=[written]))


async def test_states_and_tokens_cannot_be_searched(database: Database, rows: Rows) -> None:
    one = await rows.process(await rows.workflow("check", "SYSTEM"), "awaiting_callback")
    await database.pool.execute(
        """UPDATE processes SET state = '{"secret": "CANARY", "__callback_token": "CANARY"}' WHERE process_id = $1""",
        one,
    )

    assert await process_ids(database, query="CANARY") == set()
    (row,) = await processes(database)
    assert "CANARY" not in str(row)


async def test_a_word_that_many_rows_have_is_not_counted_and_still_sorted(database: Database, rows: Rows) -> None:
    await fill(database, rows, FEW + 20)

    async with database.transaction() as session:
        for query in ("node", "ana modify", "modify -completed failed"):
            page = await page_processes(session, read_request(query=query, rows="0,9"))
            assert len(page.rows) == 10
        assert (await page_processes(session, read_request(query="ana", rows="0,9"))).total is None
        assert (await page_processes(session, read_request(query="ana", rows=f"{FEW},{FEW + 99}"))).total == FEW + 20
        assert (await page_processes(session, read_request(query="ana failed", rows="0,9"))).total == (
            FEW + 20
        ) // 3 + 1
        assert (await page_subscriptions(session, read_request(query="node", rows="0,9"))).total is None
        assert (await page_subscriptions(session, read_request(rows="0,9"))).total == FEW + 20


async def test_a_list_that_takes_too_long_is_given_up(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(database, rows, 10)
    monkeypatch.setattr("orchestrator.db.lists.statement.SETTINGS", {"statement_timeout": "50ms"})
    monkeypatch.setattr("orchestrator.db.lists.processes._ROWS", "SELECT pg_sleep(30) FROM ({found}) f")

    async with database.transaction() as session:
        with pytest.raises(QueryTimeoutError, match="narrow the filter"):
            await page_processes(session, read_request())


async def test_processes_are_counted_by_status_tasks_apart(database: Database, rows: Rows) -> None:
    create, check = await rows.workflow("create", "CREATE"), await rows.workflow("check", "SYSTEM", is_task=True)
    for workflow, status in ((create, "failed"), (create, "failed"), (create, "completed"), (check, "failed")):
        await rows.process(workflow, status)

    async with database.transaction() as session:
        counts = await count_statuses(session)

    assert counts.process_counts == {"failed": 2, "completed": 1}
    assert counts.task_counts == {"failed": 1}


async def test_what_steps_do_to_a_running_process_touches_no_index(database: Database, rows: Rows) -> None:
    """ADR 0011: the new version of the row stands on the page of the old one, and no index gets an entry."""
    one = await rows.process(await rows.workflow("check", "SYSTEM"), "running")
    async with database.pool.acquire() as connection, connection.transaction():
        for number in range(5):
            await connection.execute(
                "UPDATE processes SET attempt = attempt + 1, claimed_by = $2, claimed_at = now(), position = $3, step = $4,"
                " state = state || '{\"a\": 1}', sequence = sequence + 1, status = 'running', assignee = 'SYSTEM',"
                " actor = 'ana', announced = $3, updated_at = clock_timestamp() WHERE process_id = $1",
                one,
                uuid4(),
                number,
                f"step {number}",
            )
        touched = await connection.fetchval("SELECT pg_stat_get_xact_tuples_hot_updated('processes'::regclass)")

    assert touched == 5
