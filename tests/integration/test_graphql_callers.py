"""What GraphQL shows to whom, under which names, and what each may do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest

from orchestrator.authorization import Role
from orchestrator.db.session import Database
from orchestrator.services.api_keys import create_key
from orchestrator.workflow import StepList, begin, done, workflow
from tests.integration import api_flows
from tests.integration.api_client import open_api
from tests.integration.api_flows import asking, greet
from tests.integration.subscription_rows import Rows
from tests.integration.test_graphql import PATH, make_page, read


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


def name_customers(ids: list[str]) -> dict[str, object]:
    if "broken" in ids:
        raise RuntimeError("the CRM is away")
    return {one: (f"{one.title()} Inc.", one[:3].upper()) for one in ids if one.startswith("a")} | {
        "plain": "Plain plc"
    }


async def test_customers_have_the_names_that_the_projects_function_knows(database: Database, rows: Rows) -> None:
    product = await rows.product("Node")
    for customer in ("acme", "plain", "someone"):
        await rows.subscription(product, customer=customer, description=f"of {customer}")
    async with open_api(database, customers=f"{__name__}:name_customers") as api:
        data = await read(
            api,
            '{ customers { page { customerId fullname shortcode } } one: customers(filterBy: [{field: "customerId", value:'
            ' "acme|none"}]) { page { fullname } } none: customers(first: 0) { page { fullname } pageInfo { totalItems } } }',
        )
        assert [tuple(one.values()) for one in data["customers"]["page"]] == [
            ("acme", "Acme Inc.", "ACM"),
            ("plain", "Plain plc", "plain"),
            ("someone", "someone", "someone"),
        ]
        assert data["one"]["page"] == [{"fullname": "Acme Inc."}]
        assert data["none"] == {"page": [], "pageInfo": {"totalItems": 3}}
        columns = ["subscription.customer_name", "subscription.customer_abbreviation"]
        answer = await api.post("/api/search/subscriptions", json={"query": "acme", "response_columns": columns})
        assert list(answer.json()["data"][0]["response_columns"].values()) == ["Acme Inc.", "ACM"]
        await rows.subscription(product, customer="broken")
        data = await read(api, "{ customers { page { fullname } } }")
        assert {"fullname": "broken"} in data["customers"]["page"]


@workflow("Is for the NOC", authorize_callback=lambda user: user == "noc")
def for_the_noc() -> StepList:
    return begin >> greet >> done


async def test_a_process_says_what_its_caller_may_do_and_which_form_it_waits_for(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api_flows.register(database, monkeypatch, [asking, for_the_noc], __name__)
    keys = {}
    for name, role in (("noc", Role.START), ("sales", Role.START), ("board", Role.READ)):
        async with database.transaction() as session:
            keys[name] = (await create_key(session, name, role, "tests", None)).secret
    ids = {
        row["name"]: row["workflow_id"] for row in await database.pool.fetch("SELECT name, workflow_id FROM workflows")
    }
    asks = await rows.process(ids["asking"], "suspended")
    await database.pool.execute("UPDATE processes SET step = 'Approve', position = 1 WHERE process_id = $1", asks)
    guarded = await rows.process(ids["for_the_noc"], "failed")
    await database.pool.execute("UPDATE processes SET step = 'Greet', position = 1 WHERE process_id = $1", guarded)
    query = (
        "{ processes { page { processId form steps { name status } userPermissions { retryAllowed resumeAllowed } } }"
        ' workflows(filterBy: {field: "name", value: "for_the_noc"}) { page { isAllowed steps { name assignee } } } }'
    )
    allowed = {}

    async with open_api(database, auth="api-keys") as api:
        for name, secret in keys.items():
            api.headers["authorization"] = f"Bearer {secret}"
            data = await read(api, query)
            found = {one["processId"]: one for one in data["processes"]["page"]}
            allowed[name] = (
                found[str(asks)]["userPermissions"]["resumeAllowed"],
                found[str(guarded)]["userPermissions"]["retryAllowed"],
                data["workflows"]["page"][0]["isAllowed"],
            )
            for process, path in ((asks, "resume"), (guarded, "resume")):
                may = found[str(process)]["userPermissions"]["resumeAllowed"]
                answer = await api.put(
                    f"/api/processes/{process}/{path}", json=[{"wrong": 1}] if process == asks else {}
                )
                assert (answer.status_code == 403) == (not may), answer.text
                if answer.status_code == 204:
                    await database.pool.execute("UPDATE processes SET status = 'failed' WHERE process_id = $1", process)

    assert allowed == {"noc": (True, True, True), "sales": (True, False, False), "board": (False, False, False)}
    assert found[str(asks)]["form"]["properties"].keys() == {"approved"}
    assert [one["status"] for one in found[str(asks)]["steps"]] == ["pending", "pending", "pending"]
    assert data["workflows"]["page"][0]["steps"][0]["assignee"] == "SYSTEM"


async def test_callbacks_that_hang_cost_a_request_a_bounded_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of what can be started is on every page: it is answered, with an error, however many callbacks hang."""
    monkeypatch.setattr("orchestrator.user_code.HOOK_TIMEOUT", 0.2)
    monkeypatch.setattr("orchestrator.api.graphql.reader.HOOK_TIMEOUT", 0.2)
    called: list[str] = []

    async def hang(workflow: str) -> bool:
        called.append(workflow)
        await asyncio.Event().wait()
        return True

    flows = [
        workflow(f"Hangs {number}", authorize_callback=hang)(make_steps(f"hanging_{number}")) for number in range(20)
    ]
    for one in flows:
        monkeypatch.setattr(sys.modules[__name__], one.name, one, raising=False)
    await api_flows.register(database, monkeypatch, flows, __name__)
    async with open_api(database) as api:
        answer = await api.post(PATH, json={"query": "{ workflows(first: 100) { page { name isAllowed } } }"})

    found = {one["name"]: one["isAllowed"] for one in answer.json()["data"]["workflows"]["page"]}
    assert [found[one.name] for one in flows] == [False] * 20
    assert 1 <= len(called) <= 3
    assert "took more than" in answer.json()["errors"][0]["message"]


def make_steps(name: str) -> Callable[[], StepList]:
    """Return a function of this name that makes steps."""

    def steps() -> StepList:
        return begin >> greet >> done

    steps.__name__ = name
    return steps


REST = (
    "/api/processes",
    "/api/subscriptions",
    "/api/products",
    "/api/workflows",
    "/api/schedules/",
    "/api/product_blocks",
)
FIELDS = (
    "processes { page { note steps { stateDelta } } }",
    "subscriptions { page { note productBlockInstances { productBlockInstanceValues } } }",
    "products { page { fixedInputs { value } subscriptions { page { note } } } }",
    "workflows { page { products { subscriptions { page { processes { page { note } } } } } } }",
    "scheduledTasks { page { name } }",
    "customers { page { fullname } }",
    "version { applicationVersions }",
    "__schema { queryType { name } }",
)


@pytest.mark.parametrize("role", [None, *Role])
async def test_graphql_shows_a_role_what_rest_shows_it(database: Database, rows: Rows, role: Role | None) -> None:
    """No relation leads past the check of the list that it belongs to: one role reads, and whoever lacks it reads nothing."""
    await make_page(rows, 1)
    headers = {}
    if role is not None:
        async with database.transaction() as session:
            headers["authorization"] = f"Bearer {(await create_key(session, 'one', role, 'tests', None)).secret}"
    async with open_api(database, auth="api-keys") as api:
        may_read = {(await api.get(path, headers=headers)).status_code for path in REST} == {200}
        for one in FIELDS:
            answer = await api.post(PATH, json={"query": f"{{ {one} }}"}, headers=headers)
            assert (answer.status_code == 200 and answer.json()["data"] is not None) == may_read
            if not may_read:
                assert answer.status_code == 401
                assert answer.json()["data"] is None
                assert answer.json()["errors"][0]["extensions"]["error_type"] == "not_authenticated"
                assert answer.headers["content-type"] == "application/json"
                assert answer.headers["www-authenticate"].startswith("Bearer")
