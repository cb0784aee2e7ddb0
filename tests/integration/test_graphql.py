"""GraphQL as programs and user interfaces ask it: the application in this process, on a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import event

from orchestrator.db.lists.statement import Statement
from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.api_client import open_api
from tests.integration.subscription_rows import Rows

PATH = "/api/graphql"


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


@pytest.fixture
async def api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(database) as client:
        yield client


async def ask(api: httpx.AsyncClient, query: str, **variables: Any) -> dict[str, Any]:
    answer = await api.post(PATH, json={"query": query, "variables": variables})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def read(api: httpx.AsyncClient, query: str, **variables: Any) -> Any:
    found = await ask(api, query, **variables)
    assert "errors" not in found, found["errors"]
    return found["data"]


async def make_page(rows: Rows, count: int) -> UUID:
    """Make so many processes, each of a subscription with three blocks, one of which belongs to another subscription."""
    product = await rows.product("Node", speed="10")
    flow = await rows.workflow("modify_node", "MODIFY", product)
    shared = await rows.subscription(product, description="shared", customer="the shared one")
    port = await rows.block(shared, "Port", {"port_name": "ge-0"})
    await rows.root(shared, port)
    for number in range(count):
        one = await rows.subscription(product, description=f"node {number}", customer=f"customer {number}")
        outer = await rows.block(one, "Card", {"slot": number})
        await rows.root(one, outer, "card")
        await rows.inside(outer, await rows.block(one, "Fan"), "fan")
        await rows.inside(outer, port, "uplink")
        process = await rows.process(flow, "failed", one)
        await rows.entry(
            process, 1, "configure", "failed", failure={"type": "E", "message": "no", "traceback": "line 1"}
        )
    return shared


PROCESSES = """
query ($first: Int!) { processes(first: $first) {
    page {
        processId workflowName lastStatus lastStep workflowTarget isTask createdBy assignee
        startedAt lastModifiedAt note traceback
        product { name tag fixedInputs { name value } } customer { fullname shortcode }
        subscriptions { page { subscriptionId description product { name } customer { fullname } } pageInfo { totalItems } }
        steps { name status stepId stateDelta started completed }
    }
    pageInfo { hasNextPage hasPreviousPage startCursor totalItems endCursor sortFields filterFields }
} }
"""
SUBSCRIPTIONS = """
query ($first: Int!) { subscriptions(first: $first, query: "description:node") {
    page {
        subscriptionId description status insync note startDate endDate customerId metadata fixedInputs
        customer { fullname } product { name productBlocks { name } } customerDescriptions { description }
        productBlockInstances {
            id parent subscriptionInstanceId productBlockInstanceValues inUseByRelations
            subscription { subscriptionId description }
        }
        processes(first: 5, sortBy: {field: "startedAt", order: ASC}) { page { processId lastStatus } pageInfo { totalItems } }
        inUseBySubscriptions { page { subscriptionId } pageInfo { totalItems } }
    }
    pageInfo { totalItems }
} }
"""


@asynccontextmanager
async def counting(database: Database) -> AsyncIterator[list[str]]:
    """Collect the statements of use cases, those of lists among them."""
    found: list[str] = []

    def note(*arguments: Any) -> None:
        found.append(str(arguments[2]))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def test_a_page_of_a_hundred_costs_as_many_statements_as_a_page_of_two(
    api: httpx.AsyncClient, rows: Rows, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    fetch = Statement.fetch

    async def note(self: Statement, connection: Any, sql: str) -> Any:
        fetched.append(sql)
        return await fetch(self, connection, sql)

    monkeypatch.setattr(Statement, "fetch", note)
    await make_page(rows, 100)

    for query in (PROCESSES, SUBSCRIPTIONS):
        numbers = []
        for first in (2, 100):
            fetched.clear()
            async with counting(database) as found:
                data = await read(api, query, first=first)
            (listed,) = data.values()
            assert len(listed["page"]) == first
            assert listed["pageInfo"]["totalItems"] == 100
            numbers.append((len(found), len(fetched)))
        assert numbers[0] == numbers[1]
        assert sum(numbers[0]) < 45


async def test_what_a_page_shows(api: httpx.AsyncClient, rows: Rows) -> None:
    shared = await make_page(rows, 2)

    (process, _) = (await read(api, PROCESSES, first=10))["processes"]["page"]
    assert process["lastStatus"] == "FAILED"
    assert process["traceback"] == "line 1"
    assert process["product"] == {"name": "Node", "tag": "NODE", "fixedInputs": [{"name": "speed", "value": "10"}]}
    assert process["customer"] == {"fullname": "customer 1", "shortcode": "customer 1"}
    assert process["subscriptions"]["page"][0]["description"] == "node 1"
    assert process["startedAt"].endswith("+00:00")
    (step,) = process["steps"]
    assert (step["name"], step["status"], step["stepId"]) == ("configure", "failed", "1")
    assert step["stateDelta"] == {"class": "E", "error": "no"}

    (_, first) = (await read(api, SUBSCRIPTIONS, first=10))["subscriptions"]["page"]
    blocks = first["productBlockInstances"]
    assert [(one["id"], one["parent"]) for one in blocks] == [(0, None), (1, 0), (2, 0)]
    assert blocks[0]["productBlockInstanceValues"] == [
        {"field": "name", "value": "Card"},
        {"field": "slot", "value": 0},
    ]
    assert {"field": "portName", "value": "ge-0"} in blocks[2]["productBlockInstanceValues"]
    assert blocks[2]["subscription"] == {"subscriptionId": str(shared), "description": "shared"}
    assert len(blocks[2]["inUseByRelations"]) == 3
    assert set(blocks[2]["inUseByRelations"][0]) == {"subscription_id", "subscription_instance_id"}
    assert first["fixedInputs"] == [{"field": "speed", "value": "10"}]
    assert [one["lastStatus"] for one in first["processes"]["page"]] == ["FAILED"]
    used = await read(
        api, '{ subscriptions(query: "shared") { page { inUseBySubscriptions { page { description } } } } }'
    )
    assert {one["description"] for one in used["subscriptions"]["page"][0]["inUseBySubscriptions"]["page"]} == {
        "node 0",
        "node 1",
    }


async def test_sibling_fields_do_not_share_a_session_and_need_no_second_connection(
    database: Database, rows: Rows
) -> None:
    """A request that held one connection while it waits for another would wait for ever."""
    await make_page(rows, 3)
    small = Database(
        database.engine.url.render_as_string(hide_password=False),
        pool_size=2,
        connect_timeout=30,
        application_name="two",
    )
    await small.open()
    query = (
        "{ a: processes { page { processId product { name } subscriptions { page { product { name } } } } }"
        " b: subscriptions { page { subscriptionId productBlockInstances { id subscription { description } } } }"
        " c: products { page { productId subscriptions { pageInfo { totalItems } } } }"
        " d: processes(first: 2) { page { processId steps { name } } } customers { page { fullname } } }"
    )
    try:
        async with open_api(small) as api:
            one = await read(api, query)
            for _ in range(2):
                answers = await asyncio.gather(*(ask(api, query) for _ in range(50)))
                assert all(answer == {"data": one} for answer in answers)
    finally:
        await small.close()


async def test_an_unknown_filter_or_order_is_an_error_beside_the_data(api: httpx.AsyncClient, rows: Rows) -> None:
    await make_page(rows, 2)

    found = await ask(
        api,
        '{ processes(filterBy: {field: "nothing", value: "x"}, sortBy: [{field: "state", order: DESC}]) { page { processId }'
        ' pageInfo { totalItems } } subscriptions(filterBy: [{field: "status", value: "nonsense"}]) { page { description } } }',
    )

    assert len(found["data"]["processes"]["page"]) == 2
    assert found["data"]["subscriptions"]["page"] == []
    words = [error["message"] for error in found["errors"]]
    assert any("no filter 'nothing'" in one for one in words)
    assert any("cannot be sorted by 'state'" in one for one in words)
    assert any("'status' has none of its values" in one for one in words)
    assert {error["extensions"]["error_type"] for error in found["errors"]} == {"invalid_query"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"query": "{ nothing }"}, "Cannot query field 'nothing'"),
        ({"query": "{ processes { page { processId }"}, "Syntax Error"),
        ({"query": ""}, "no query"),
        ({"query": "mutation { abort }"}, "only queries"),
        ({"query": "subscription { processes { page { note } } }"}, "only queries"),
        ({"query": "{ processes(first: 1000) { page { form } } }"}, "values, 250000 are allowed"),
        ({"query": "query ($n: Int!) { processes(first: $n) { page { note } } }", "variables": {"n": "many"}}, "Int"),
        ({"query": "{ " + "version { applicationVersions } " * 500 + "}"}, "token"),
        ({"query": "fragment a on Query { version { applicationVersions } }"}, "which operation"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_words(api: httpx.AsyncClient, body: Any, words: str) -> None:
    answer = await api.post(PATH, json=body)

    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["data"] is None
    assert words in found["errors"][0]["message"]
    assert found["errors"][0]["message"]
    assert "Traceback" not in answer.text


async def test_only_json_in_a_post_is_taken(database: Database) -> None:
    async with open_api(database, max_message_bytes=10_000, graphql_introspection=False) as api:
        query = "{ version { applicationVersions } }"
        assert (await api.get(PATH, params={"query": query})).status_code == 405
        assert (await api.post(PATH, content=query, headers={"content-type": "text/plain"})).status_code == 415
        assert (await api.post(PATH, data={"query": query})).status_code == 415
        assert (await api.post(PATH, json={"query": query + " " * 10_000})).status_code == 413
        assert (await api.post(PATH, json=[{"query": query}])).status_code == 422
        answer = await api.post(PATH, json={"query": query, "extensions": {"persistedQuery": {"version": 1}}})
        first, *_ = answer.json()["data"]["version"]["applicationVersions"]
        assert tuple(map(int, first.split()[1].split("."))) >= (5, 4, 0)
        closed = await ask(api, "{ __schema { queryType { name } } }")
        assert closed["data"] is None
        assert "ntrospection" in closed["errors"][0]["message"]
        assert "Did you mean" not in (await ask(api, "{ processe { page { note } } }"))["errors"][0]["message"]
    async with open_api(database) as api:
        assert (await read(api, "{ __schema { queryType { name } } }"))["__schema"]["queryType"]["name"] == "Query"


async def test_a_list_without_end_is_cut_so_that_the_newest_rows_stay(
    api: httpx.AsyncClient, rows: Rows, database: Database
) -> None:
    """The field's user interface takes the last of all processes of a subscription for the newest."""
    product = await rows.product("Node")
    one = await rows.subscription(product)
    flow = await rows.workflow("modify_node", "MODIFY", product)
    await database.pool.execute(
        "INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt,"
        " sequence, failures, lost, rewinds, state, started_by, actor, started_at, note)"
        " SELECT gen_random_uuid(), $1, 'modify_node', false, 'completed', 0, NULL, false, 0, 0, 0, 0, 0, '{}', 'ana', 'ana',"
        " now() + n * interval '1 second', n::text FROM generate_series(1, 1500) n",
        flow,
    )
    await database.pool.execute("INSERT INTO processes_subscriptions SELECT process_id, $1 FROM processes", one)
    everything = 'first: 1000000, sortBy: {field: "startedAt", order: ASC}'

    for start, expected in ((0, (501, 1500)), (700, (701, 1500)), (1495, (1496, 1500))):
        data = await read(
            api,
            f"{{ processes({everything}, after: {start}) {{ page {{ note }} pageInfo {{ totalItems hasNextPage }} }}"
            f" subscriptions {{ page {{ processes({everything}, after: {start}) {{ page {{ note }}"
            " pageInfo { totalItems hasNextPage } } } } }",
        )
        for found in (data["processes"], data["subscriptions"]["page"][0]["processes"]):
            notes = [int(row["note"]) for row in found["page"]]
            assert (notes[0], notes[-1]) == expected
            assert notes == sorted(notes)
            assert found["pageInfo"]["totalItems"] == 1500
            assert not found["pageInfo"]["hasNextPage"]
    newest = await read(
        api, '{ processes(first: 1000000, sortBy: {field: "startedAt", order: DESC}) { page { note } } }'
    )
    assert [row["note"] for row in newest["processes"]["page"]][:2] == ["1500", "1499"]
    assert len(newest["processes"]["page"]) == 1000


async def test_no_field_that_must_be_there_is_null_for_odd_rows(
    api: httpx.AsyncClient, rows: Rows, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without a subscription, of a plan that nobody has; a product that the code lacks; no workflow of a schedule."""
    await api_flows.register(database, monkeypatch)
    product = await rows.product("Gone")
    await database.pool.execute("UPDATE products SET status = 'not in code', end_date = now()")
    lonely = await rows.process(await rows.workflow("forgotten", "SYSTEM", gone=True), "running")
    await rows.process(
        await rows.workflow("refusing_but_old", "MODIFY", product), "suspended", await rows.subscription(product)
    )
    waiting = await database.pool.fetchval("SELECT workflow_id FROM workflows WHERE name = 'asking'")
    stuck = await rows.process(waiting, "suspended")
    await database.pool.execute("UPDATE processes SET step = 'No such step' WHERE process_id = $1", stuck)
    await rows.entry(lonely, 1, "one", delta={"large": 10**400, "text": "x"})
    await rows.block(await rows.subscription(product, customer=""), "Lost")

    data = await ask(
        api,
        "{ processes { page { processId workflowName workflowTarget isTask lastStatus startedAt customer { customerId fullname"
        " shortcode } product { name } userPermissions { retryAllowed resumeAllowed } steps { name status stateDelta } form"
        " traceback subscriptions { page { subscriptionId product { name tag } productBlockInstances { id parent"
        " productBlockInstanceValues inUseByRelations subscription { status } } customer { fullname } } } } }"
        " subscriptions { page { description product { name status tag productType } productBlockInstances { id } } }"
        " workflows(first: 1000000) { page { name isAllowed steps { name } products { name } } }"
        " products { page { name status productBlocks { name } subscriptions { pageInfo { totalItems } } } }"
        " resourceTypes { page { resourceType productBlocks { name } } } productBlocks { page { name dependsOn { name } } } }",
    )

    assert data["data"] is not None, data["errors"]
    found = {one["processId"]: one for one in data["data"]["processes"]["page"]}
    assert len(found) == 3
    assert found[str(lonely)]["customer"] == {"customerId": "", "fullname": "", "shortcode": ""}
    assert found[str(lonely)]["userPermissions"] == {"retryAllowed": False, "resumeAllowed": False}
    assert found[str(lonely)]["steps"][0]["stateDelta"]["text"] == "x"
    assert found[str(stuck)]["form"] is None
    assert {one["extensions"]["error_type"] for one in data.get("errors", [])} <= {"invalid_query"}
    assert data["data"]["products"]["page"][0]["status"] == "not in code"


async def test_an_outage_is_answered_as_elsewhere(database: Database, rows: Rows) -> None:
    away = Database(
        "postgresql+asyncpg://nobody@127.0.0.1:1/none", pool_size=2, connect_timeout=5, application_name="away"
    )

    async with open_api(away) as api:
        answer = await api.post(PATH, json={"query": "{ processes { page { note } } }"})

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.content)["type"].endswith("database.unavailable")
