"""What the pages of the field's user interface ask for is answered in the shape that they read."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from orchestrator.db.session import Database
from tests.existing_ui import read_documents
from tests.existing_ui.requests import REQUESTS, Recorded, find_difference
from tests.integration import api_flows
from tests.integration.api_client import open_api
from tests.integration.subscription_rows import Rows

ORIGIN = "https://ui.example"


async def make_rows(database: Database, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Fill a database, and return the ids of what is in it."""
    await api_flows.register(database, monkeypatch)
    await database.pool.execute("UPDATE workflows SET is_task = true WHERE name = 'greeting'")
    rows = Rows(database.pool)
    product = await rows.product("Node", speed="10")
    modify = await rows.workflow("modify_node", "MODIFY", product)
    subscription = await rows.subscription(product, insync=False)
    block = await rows.block(subscription, "Port", {"port_name": "ge-0"})
    await rows.root(subscription, block)
    user = await rows.subscription(product, description="a user")
    await rows.root(user, block, "uplink")
    flows = {
        row["name"]: row["workflow_id"] for row in await database.pool.fetch("SELECT name, workflow_id FROM workflows")
    }
    failed = await rows.process(modify, "failed", subscription)
    await rows.entry(failed, 1, "configure", "failed", failure={"type": "E", "message": "no", "traceback": "line 1"})
    failed_task = await rows.process(flows["asking"], "failed")
    task = await rows.process(flows["greeting"], "completed")
    suspended = await rows.process(flows["asking"], "suspended")
    await database.pool.execute(
        "UPDATE processes SET is_task = true, step = 'Greet', position = 2 WHERE process_id = $1", failed_task
    )
    await database.pool.execute("UPDATE processes SET step = 'Approve', position = 1 WHERE process_id = $1", suspended)
    await database.pool.execute("INSERT INTO resource_types (resource_type) VALUES ('port_name')")
    found = {
        "product": product,
        "subscription": subscription,
        "block": await database.pool.fetchval("SELECT product_block_id FROM product_blocks"),
        "type": await database.pool.fetchval("SELECT resource_type_id FROM resource_types"),
        "greeting": flows["greeting"],
        "failed": failed_task,
        "process": failed,
        "task": task,
        "suspended": suspended,
        "nothing": uuid4(),
    }
    return {name: str(value) for name, value in found.items()}


def fill(value: Any, ids: dict[str, str]) -> Any:
    """Put ids into the places of their names."""
    text = json.dumps(value)
    for name, found in ids.items():
        text = text.replace(f"{{{name}}}", found)
    return json.loads(text)


async def send(api: httpx.AsyncClient, one: Recorded, ids: dict[str, str]) -> Any:
    """Send a request as a page does, and return the answer once it has the shape that the page reads."""
    content = b"" if one.body is None else json.dumps(fill(one.body, ids)).encode()
    headers = {"content-type": "application/json", "origin": ORIGIN}
    answer = await api.request(one.method, f"/api{fill(one.path, ids)}", content=content, headers=headers)
    assert answer.status_code == one.status, (one, answer.text)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    if one.status == 204:
        assert answer.content == b""
        return None
    assert find_difference(one.shape, answer.json()) is None, (one, find_difference(one.shape, answer.json()))
    return answer.json()


async def test_each_page_is_answered(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which a person may have clicked: each request finds what those before it have left."""
    ids = await make_rows(database, monkeypatch)
    async with open_api(database, cors_origins=ORIGIN) as api:
        for one in REQUESTS:
            answer = await send(api, one, ids)
            if one.path == "/schedules/" and one.method == "POST":
                ids["schedule"] = answer["id"]
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            asked = {"origin": ORIGIN, "access-control-request-method": method}
            asked["access-control-request-headers"] = "authorization,content-type"
            assert (await api.options("/api/graphql", headers=asked)).status_code == 200


VARIABLES = {
    "first": 1000,
    "after": 0,
    "sortBy": {"field": "name", "order": "ASC"},
    "query": "no*",
    "processName": "asking",
    "workflowName": "asking",
    "customerId": "acme",
}
FILTERS = {
    "ProcessList": {
        "field": "lastStatus",
        "value": "created-running-suspended-waiting-failed-resumed-awaiting_callback",
    },
    "ProcessListSummary": {"field": "isTask", "value": "true"},
    "SubscriptionsList": {"field": "status", "value": "Active-Provisioning"},
    "SubscriptionsList2": {"field": "status", "value": "!terminated"},
    "MetadataProducts": {"field": "status", "value": "active"},
}
SORTS = {
    "Process": {"field": "lastModifiedAt", "order": "DESC"},
    "Subscriptions": {"field": "startDate", "order": "DESC"},
    "RelatedSubscriptions": {"field": "startDate", "order": "DESC"},
    "MetadataResourceTypes": {"field": "resourceType", "order": "ASC"},
}


async def test_each_document_is_carried_out(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await make_rows(database, monkeypatch)
    own = {"processId": ids["process"], "subscriptionId": ids["subscription"], "subscriptionIds": ids["subscription"]}
    found: dict[str, Any] = {}
    async with open_api(database, cors_origins=ORIGIN) as api:
        for name, document in read_documents().items():
            operation = name.partition("/")[2]
            sort = next((one for begin, one in SORTS.items() if operation.startswith(begin)), VARIABLES["sortBy"])
            variables = {**VARIABLES, **own, "sortBy": sort, "filterBy": FILTERS.get(operation)}
            if operation == "SubscriptionsList2":
                variables["query"] = "insync:false"
            body = {
                "query": document,
                "variables": {key: one for key, one in variables.items() if f"${key}" in document},
            }
            answer = await api.post("/api/graphql", json=body, headers={"origin": ORIGIN})
            assert answer.status_code == 200, (name, answer.text)
            assert "errors" not in answer.json(), (name, answer.text)
            found[name] = answer.json()["data"]

    (detail,) = found["9.0.0/SubscriptionDetail"]["subscriptions"]["page"]
    assert detail["insync"] is False
    assert detail["productBlockInstances"][0]["inUseByRelations"]
    assert [one["workflowName"] for one in detail["processes"]["page"]] == ["modify_node"]
    (related,) = found["9.0.0/RelatedSubscriptions"]["subscriptions"]["page"]
    assert [one["status"] for one in related["inUseBySubscriptions"]["page"]] == ["active"]
    (process,) = found["7.5.0/ProcessDetail"]["processes"]["page"]
    assert process["traceback"] == "line 1"
    assert [one["name"] for one in found["9.0.0/ProcessSteps"]["workflows"]["page"][0]["steps"]] == [
        "Start",
        "Approve",
        "Greet",
        "Done",
    ]
    assert [one["subscriptionId"] for one in found["7.5.0/SubscriptionsList2"]["subscriptions"]["page"]] == [
        ids["subscription"]
    ]
    assert found["9.0.0/Customer"]["customers"]["page"] == [
        {"customerId": "acme", "fullname": "acme", "shortcode": "acme"}
    ]
    listed = found["9.0.0/MetadataProducts2"]["products"]["pageInfo"]
    assert {"name", "productType", "status", "tag"} <= set(listed["sortFields"]) & set(listed["filterFields"])
    names = [one for page in found.values() for one in _list_sort_fields(page)]
    assert "productName" in names
    assert not [one for one in names if "_" in one]


def _list_sort_fields(value: Any) -> list[str]:
    if isinstance(value, dict):
        return list(value.get("sortFields") or ()) + [
            one for inner in value.values() for one in _list_sort_fields(inner)
        ]
    return [one for inner in value for one in _list_sort_fields(inner)] if isinstance(value, list) else []
