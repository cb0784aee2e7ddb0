"""Reading processes, subscriptions and metadata over HTTP: the application in this process, on a real database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from orchestrator.api.routes.metadata import BlockItem, ProductItem, TypeItem, WorkflowItem
from orchestrator.api.routes.processes import ProcessDocument, ProcessItem
from orchestrator.api.routes.subscriptions import SubscriptionItem
from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.api_client import open_api
from tests.integration.model_bench import make_bench
from tests.integration.subscription_rows import Rows
from tests.unit.models import FolderBlockInactive, FolderInactive

HIDDEN = ("state", "state.__callback_token", "api_key_hash", "__class__", "id;pid", "request_key")
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
    "a " * 10_000,
    "🚀",
    "\0",
    "\ud800".encode("utf-8", "surrogatepass"),
)


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


@pytest.fixture
async def api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(database) as client:
        yield client


async def read(api: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    answer = await api.get(f"/api{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def is_problem(answer: httpx.Response, *statuses: int) -> bool:
    return answer.status_code in statuses and answer.headers["content-type"] == "application/problem+json"


async def test_lists_say_which_rows_of_how_many_they_have(api: httpx.AsyncClient, rows: Rows) -> None:
    product = await rows.product("Node")
    workflow = await rows.workflow("modify_node", "MODIFY", product)
    for number in range(12):
        subscription = await rows.subscription(product, description=f"node {number}")
        await rows.process(workflow, "failed" if number % 2 else "completed", subscription)

    answer = await api.get("/api/processes", params={"range": "0,9"})
    assert answer.headers["content-range"] == "processes 0-9/12"
    for item in answer.json():
        ProcessItem.model_validate(item, extra="forbid")
    assert answer.json()[0]["started_at"] > answer.json()[9]["started_at"]
    assert (await api.get("/api/processes", params={"range": "10,19"})).headers["content-range"] == "processes 10-11/12"
    assert (await api.get("/api/processes", params={"range": "50,59"})).headers["content-range"] == "processes */12"
    answer = await api.get("/api/processes?filter=last_status,failed&filter=product,node&sort=started_at,asc&q=modify")
    assert answer.headers["content-range"] == "processes 0-5/6"
    answer = await api.get("/api/subscriptions", params={"query": "node 7"})
    assert answer.headers["content-range"] == "subscriptions 0-0/1"
    (item,) = answer.json()
    SubscriptionItem.model_validate(item, extra="forbid")
    assert item["description"] == "node 7"
    assert await read(api, "/processes/status-counts") == {
        "process_counts": {"failed": 6, "completed": 6},
        "task_counts": {},
    }


@pytest.mark.parametrize("path", ["/api/processes", "/api/subscriptions"])
async def test_no_list_breaks_or_gives_away_what_is_hidden(api: httpx.AsyncClient, path: str) -> None:
    for name in HIDDEN:
        for parameters in ({"filter": f"{name},a"}, {"sort": f"{name},asc"}):
            answer = await api.get(path, params=parameters)
            assert is_problem(answer, 422), answer.text
            assert "_id" in str(answer.json()["reasons"][0]["allowed"])
    for written in ("0,99999999999999999999", "9,0", "a,b", "0", "-1,5", "1_0,20", "0,9\0"):
        assert is_problem(await api.get(path, params={"range": written}), 422), written
    for written in ("id,asc,status", "status", "status,sideways"):
        assert is_problem(await api.get(path, params={"sort": written}), 422), written
    for text in BAD_TEXTS:
        began = time.monotonic()
        answer = await api.get(path, params={"query": text})
        assert answer.status_code == 200 or is_problem(answer, 400, 422), answer.text
        assert time.monotonic() - began < 30
        assert "byte sequence" not in answer.text
    answer = await api.get(
        f"{path}?filter=start_date,>=2026-01-01T00:00:00+02:00&filter=started_at,>2026-01-01T00:00:00+02:00"
    )
    assert is_problem(answer, 422)
    assert (await api.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/processes/{}",
        "/subscriptions/{}",
        "/subscriptions/domain-model/{}",
        "/subscriptions/workflows/{}",
        "/subscriptions/{}/history",
        "/products/{}",
        "/product_blocks/{}",
        "/resource_types/{}",
        "/workflows/{}",
    ],
)
async def test_what_does_not_exist_is_not_found_however_it_is_called(api: httpx.AsyncClient, path: str) -> None:
    for name in (str(uuid4()), "no-such", "2147483648", "%00", "a%00b", "..%2f", "%ff", "9" * 300, "'; DROP TABLE x"):
        answer = await api.get(f"/api{path.format(name)}")
        assert is_problem(answer, 404, 422, 400), (name, answer.text)
        assert "byte sequence" not in answer.text


async def test_a_process_is_shown_with_its_attempts_and_a_tag_that_changes_with_it(
    api: httpx.AsyncClient, rows: Rows, database: Database
) -> None:
    product = await rows.product("Node")
    subscription = await rows.subscription(product, customer="acme")
    one = await rows.process(await rows.workflow("modify_node", "MODIFY", product), "failed", subscription)
    failure = {"type": "ValueError", "message": "no", "traceback": "at line 1", "details": None}
    await rows.entry(one, 1, "configure", "failed", attempt=1, failure=failure)
    await rows.entry(one, 2, "configure", "failed", attempt=2, failure=failure, delta={"vlan": 7})
    await database.pool.execute("UPDATE processes SET sequence = 2, state = '{\"vlan\": 7}' WHERE process_id = $1", one)

    answer = await api.get(f"/api/processes/{one}")

    document = answer.json()
    ProcessDocument.model_validate(document, extra="forbid")
    assert [(step["name"], step["attempt"], step["status"]) for step in document["steps"]] == [
        ("configure", 1, "failed"),
        ("configure", 2, "failed"),
    ]
    assert document["steps"][1]["state_delta"] == document["current_state"] == {"vlan": 7}
    assert document["steps"][1]["consumer"] == "c1"
    assert document["traceback"] == "at line 1"
    assert document["failed_reason"] == "no"
    assert document["product_id"] == str(product)
    assert document["customer_id"] == "acme"
    assert document["subscriptions"][0]["product"]["name"] == "Node"
    tag = answer.headers["etag"]
    for wanted in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        unchanged = await api.get(f"/api/processes/{one}", headers={"if-none-match": wanted})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
    # Something in a row that belongs to another table.
    await database.pool.execute("UPDATE products SET tag = 'OTHER'")
    changed = await api.get(f"/api/processes/{one}", headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_a_list_that_takes_too_long_is_answered_with_503(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.db.lists.statement.SETTINGS", {"statement_timeout": "50ms"})
    monkeypatch.setattr(
        "orchestrator.db.lists.processes._ROWS", "SELECT pg_sleep(30) FROM (SELECT count(*) FROM ({found}) f) f"
    )

    answer = await api.get("/api/processes")

    assert is_problem(answer, 503)
    assert answer.headers["retry-after"]
    assert answer.json()["type"] == "urn:orchestrator:problem:query.timeout"
    assert (await api.get("/api/subscriptions")).status_code == 200


async def test_large_processes_do_not_hold_other_requests(
    api: httpx.AsyncClient, rows: Rows, database: Database
) -> None:
    """20 MB and 2,000 steps, five times at once: the loop is never held for long, and lists do not read states."""
    one = await rows.process(await rows.workflow("big", "SYSTEM"), "failed")
    await database.pool.execute(
        "INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, author, started_at,"
        " finished_at) SELECT $1, n, 'step', 'step ' || n, n, n, 'success', jsonb_build_object('text', repeat('x', 5000), 'n',"
        " n), 'ana', now(), now() FROM generate_series(1, 2000) n",
        one,
    )
    await database.pool.execute(
        "UPDATE processes SET state = jsonb_build_object('text', repeat('y', 10000000)) WHERE process_id = $1", one
    )
    held: list[float] = []

    async def measure() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            # Processor time of the loop's thread, not time on the clock: the machine may be busy.
            held.append(time.thread_time() - began)

    measuring = asyncio.create_task(measure())
    answers = await asyncio.gather(*(api.get(f"/api/processes/{one}") for _ in range(5)))
    measuring.cancel()

    assert {answer.status_code for answer in answers} == {200}
    assert len(answers[0].content) > 19_000_000
    assert len(json.loads(answers[0].content)["steps"]) == 2000
    assert max(held) < 0.5
    assert len((await api.get("/api/processes")).content) < 2_000


async def test_a_subscription_is_shown_with_its_blocks_its_workflows_and_its_history(
    api: httpx.AsyncClient, rows: Rows
) -> None:
    product = await rows.product("Node", speed="1000")
    for name, target in (("modify_node", "MODIFY"), ("terminate_node", "TERMINATE"), ("check_node", "VALIDATE")):
        await rows.workflow(name, target, product)
    await rows.workflow("create_node", "CREATE", product)
    node = await rows.subscription(product, status="provisioning")
    user = await rows.subscription(product, description="the user", insync=False)
    block, outer = await rows.block(node, "Node", {"ims_id": 7}), await rows.block(user, "Port")
    await rows.root(node, block, "node")
    await rows.inside(outer, block)
    await rows.change(node, 2, {"status": ["initial", "provisioning"]})

    shown = await read(api, f"/subscriptions/{node}")
    assert shown["product"] == "Node"
    assert shown["fixed_inputs"] == {"speed": "1000"}
    assert shown["blocks"][0]["resources"] == {"ims_id": 7}
    assert shown["in_use_by"][0]["description"] == "the user"
    offers = await read(api, f"/subscriptions/workflows/{node}")
    assert {name for name, items in offers.items() if items} == {"modify", "terminate", "validate"}
    assert set(offers) == {"create", "modify", "terminate", "system", "validate", "reconcile"}
    (modify,), (terminate,) = offers["modify"], offers["terminate"]
    assert modify["description"] == "about modify_node"
    assert modify["reason"] == "subscription.relations_not_in_sync"
    assert modify["locked_relations_detail"] == [{"subscription_id": str(user), "subscription_description": "the user"}]
    assert (modify["action"], modify["usable_when"], modify["status"]) == ("modified", ["active"], "provisioning")
    assert [one["key"] for one in terminate["reasons"]] == [
        "subscription.relations_not_in_sync",
        "subscription.no_modify_subscription_in_use_by_others",
    ]
    assert terminate["unterminated_in_use_by_subscriptions"] == [str(user)]
    history = await read(api, f"/subscriptions/{node}/history", limit=1)
    assert history["other_changes"][0]["changes"] == {"status": ["initial", "provisioning"]}
    assert history["before"] is None
    for wrong in ("x", "change-", "change-" + "9" * 30):
        answer = await api.get(f"/api/subscriptions/{node}/history", params={"before": wrong})
        assert is_problem(answer, 422)


async def test_a_subscription_is_set_in_sync_unless_a_process_holds_it(api: httpx.AsyncClient, rows: Rows) -> None:
    product = await rows.product("Node")
    holder = await rows.process(await rows.workflow("modify_node", "MODIFY", product), "failed")
    held = await rows.subscription(product, insync=False, locked_by=holder)
    left = await rows.subscription(product, insync=False)

    refused = await api.put(f"/api/subscriptions/{held}/set_in_sync")
    assert is_problem(refused, 422)
    assert refused.json()["detail"].endswith(f"[{holder}]")
    done = await api.put(f"/api/subscriptions/{left}/set_in_sync", params={"reason": "checked"})
    assert (done.status_code, done.json()["changed"]) == (200, True)
    assert (await read(api, f"/subscriptions/{left}"))["insync"] is True
    history = await read(api, f"/subscriptions/{left}/history")
    assert [(one["author"], one["note"]) for one in history["other_changes"]] == [("anonymous", "checked")]
    assert is_problem(await api.put(f"/api/subscriptions/{uuid4()}/set_in_sync"), 404)


async def test_metadata_is_listed_and_shown_by_id_or_name(
    api: httpx.AsyncClient, rows: Rows, database: Database
) -> None:
    product = await rows.product("Prefix 28", speed="10")
    await rows.workflow("create_prefix", "CREATE", product)
    await database.pool.execute(
        "INSERT INTO product_blocks (name) VALUES ('PrefixBlock'), ('SubBlock');"
        "INSERT INTO resource_types (resource_type) VALUES ('netmask');"
        "INSERT INTO product_product_blocks SELECT product_id, product_block_id FROM products, product_blocks WHERE"
        " product_blocks.name = 'PrefixBlock';"
        "INSERT INTO product_block_resource_types SELECT product_block_id, resource_type_id FROM product_blocks,"
        " resource_types WHERE name = 'PrefixBlock';"
        "INSERT INTO product_block_relations SELECT a.product_block_id, b.product_block_id FROM product_blocks a,"
        " product_blocks b WHERE a.name = 'PrefixBlock' AND b.name = 'SubBlock';"
    )

    for path, model, name in (
        ("/products", ProductItem, "Prefix 28"),
        ("/product_blocks", BlockItem, "PrefixBlock"),
        ("/resource_types", TypeItem, "netmask"),
        ("/workflows", WorkflowItem, "create_prefix"),
    ):
        items = await read(api, path)
        shown = await read(api, f"{path}/{name}")
        model.model_validate(shown, extra="forbid")
        assert shown in items
        key = next(value for field, value in shown.items() if field.endswith("_id"))
        assert await read(api, f"{path}/{key}") == shown
        changed = await api.patch(f"/api{path}/{name}", json={"description": "new words"})
        assert changed.status_code == 200, changed.text
        again = await read(api, f"{path}/{name}")
        assert (again["description"], again["changed_by"], shown["changed_by"]) == ("new words", "anonymous", None)
        wrong: object
        for wrong in ({"description": 7}, {"description": "a", "name": "b"}, [], {"description": "x" * 20_000}):
            assert is_problem(await api.patch(f"/api{path}/{name}", json=wrong), 422)
        assert is_problem(await api.patch(f"/api{path}/no-such", json={"description": "a"}), 404)
    changes = await database.pool.fetch("SELECT kind, author, changes::text FROM metadata_changes ORDER BY change_id")
    assert [row["kind"] for row in changes] == ["product", "product block", "resource type", "workflow"]
    assert {row["author"] for row in changes} == {"anonymous"}
    assert json.loads(changes[0]["changes"]) == {"description": ["", "new words"]}
    block = await read(api, "/product_blocks/PrefixBlock")
    assert (block["resource_types"][0]["resource_type"], block["depends_on"][0]["name"]) == ("netmask", "SubBlock")


async def test_a_product_is_taken_out_of_use_and_back(api: httpx.AsyncClient, rows: Rows, database: Database) -> None:
    await rows.product("Node")

    ended = await api.patch("/api/products/Node", json={"status": "end_of_life"})
    assert (ended.json()["status"], ended.json()["end_date"] is None) == ("end_of_life", False)
    back = await api.patch("/api/products/Node", json={"status": "active"})
    assert (back.json()["status"], back.json()["end_date"]) == ("active", None)
    changes = await database.pool.fetch("SELECT changes::text FROM metadata_changes ORDER BY change_id")
    assert [json.loads(row["changes"]) for row in changes] == [
        {"status": ["active", "end_of_life"]},
        {"status": ["end_of_life", "active"]},
    ]
    assert is_problem(await api.patch("/api/products/Node", json={"status": "not_in_code"}), 422)
    await database.pool.execute("UPDATE products SET status = 'not_in_code'")
    assert is_problem(await api.patch("/api/products/Node", json={"status": "active"}), 409)


async def test_a_process_that_waits_for_input_is_shown_with_its_form_and_the_steps_to_come(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api_flows.register(database, monkeypatch)
    async with open_api(database) as client:
        started = (await client.post("/api/processes/asking", json=[])).json()["id"]
        ran = (await client.post("/api/processes/greeting", json=[{"name": "ana"}, {"tone": "kind"}])).json()["id"]
        asking = await read(client, f"/processes/{started}")
        greeting = await read(client, f"/processes/{ran}")
        await database.pool.execute("UPDATE processes SET claimed_at = now() WHERE process_id = $1", UUID(ran))
        running = await read(client, f"/processes/{ran}")
        await client.put(f"/api/processes/{started}/abort")
        aborted = await read(client, f"/processes/{started}")

    def steps(document: dict[str, Any]) -> list[tuple[str, str]]:
        ProcessDocument.model_validate(document, extra="forbid")
        return [(step["name"], step["status"]) for step in document["steps"] if step["kind"] == "step"]

    assert steps(asking) == [("Start", "success"), ("Approve", "suspend"), ("Greet", "pending"), ("Done", "pending")]
    assert list(asking["form"]["properties"]) == ["approved"]
    assert asking["waits_for"]["data"]["step"] == "Approve"
    assert steps(greeting) == [("Greet", "pending"), ("Done", "pending")]
    assert greeting["form"] is None
    assert steps(running) == [("Greet", "running"), ("Done", "pending")]
    assert {status for _, status in steps(aborted)} == {"success", "suspend", "abort"}
    assert (aborted["form"], aborted["waits_for"]) == (None, None)


async def test_the_domain_model_is_a_tree_under_the_names_of_fields(database: Database, rows: Rows) -> None:
    bench = await make_bench(database)
    async with bench.session() as session:
        folder = await FolderInactive.from_product_id(session, bench.products["Folder"], "acme")
    folder.top.title = "top"
    folder.top.folders.append(FolderBlockInactive.new(folder.subscription_id, title="inside"))
    await bench.save(folder)
    unknown = await rows.subscription(await rows.product("Not in the code"))
    async with open_api(database) as client:
        tree = await read(client, f"/subscriptions/domain-model/{folder.subscription_id}")
        assert is_problem(await client.get(f"/api/subscriptions/domain-model/{unknown}"), 409)

    assert tree["customer_id"] == "acme"
    assert tree["top"]["folders"][0]["title"] == "inside"
    assert tree["top"]["owner_subscription_id"] == str(folder.subscription_id)
