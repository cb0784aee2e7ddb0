"""``orchestrator subscriptions …`` as people use it: the real program, on a real database."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from orchestrator.db.session import Database
from tests.integration.cli_servers import Cli, project
from tests.integration.subscription_rows import Rows

NO_BROKER = "amqp://u:hidden@127.0.0.1:1/x"
NODE, PORT = UUID("aaaaaaaa-0000-4000-8000-000000000001"), UUID("bbbbbbbb-0000-4000-8000-000000000002")
MAPS = """
from orchestrator.services.subscriptions import WF_USABLE_MAP, WF_USABLE_WHILE_OUT_OF_SYNC

WF_USABLE_MAP.update({"provision_node": ["provisioning"]})
WF_USABLE_WHILE_OUT_OF_SYNC.extend(["modify_description"])
"""


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


@pytest.fixture
async def cli(database: Database, database_url: str, rows: Rows, tmp_path: Path) -> Cli:
    """A project with rules of its own; a node, and a port that uses a block of it. RabbitMQ is not needed."""
    nodes, ports = await rows.product("Node", speed="1000"), await rows.product("Port")
    for name, target in (
        ("create_node", "CREATE"),
        ("modify_node", "MODIFY"),
        ("modify_description", "MODIFY"),
        ("provision_node", "MODIFY"),
        ("terminate_node", "TERMINATE"),
    ):
        await rows.workflow(name, target, nodes)
    await rows.subscription(nodes, subscription_id=NODE, description="node ams-1")
    await rows.subscription(
        ports, subscription_id=PORT, description="port \x1b[31m7", customer="beta", status="initial"
    )
    block = await rows.block(NODE, "NodeBlock", {"ims_id": 7, "name": "ams-1 [bold]"}, label="main")
    await rows.root(NODE, block, "node")
    mine = await rows.block(PORT, "PortBlock", {"vlan": 142})
    await rows.root(PORT, mine, "port")
    await rows.inside(mine, block, "node")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "__init__.py").write_text(MAPS)
    made = project(tmp_path, database_url, NO_BROKER)
    return replace(made, environment=made.environment | {"ORCHESTRATOR_WORKFLOWS": "flows,ours"})


async def hold(rows: Rows, status: str = "failed") -> UUID:
    """A process holds the node."""
    process = await rows.process(await rows.workflow("holding", "MODIFY"), status, NODE)
    await rows.pool.execute(
        "UPDATE subscriptions SET insync = false, locked_by = $1 WHERE subscription_id = $2", process, NODE
    )
    return process


def short(one: UUID) -> str:
    return str(one)[:8]


def test_subscriptions_are_listed_page_by_page_and_filtered(cli: Cli) -> None:
    """B2."""
    everything = cli.json("subscriptions", "list")
    assert [one["description"] for one in everything] == ["port \x1b[31m7", "node ams-1"]
    assert everything[1] | {"created_at": "", "updated_at": ""} == {
        "subscription_id": str(NODE),
        "description": "node ams-1",
        "status": "active",
        "insync": True,
        "customer_id": "acme",
        "product": "Node",
        "note": None,
        "version": 1,
        "start_date": None,
        "end_date": None,
        "created_at": "",
        "updated_at": "",
        "locked_by": None,
        "held_by": None,
    }
    for filters, found in (
        (("--product", "Port"), [PORT]),
        (("--customer", "acme"), [NODE]),
        (("--status", "initial", "--status", "disabled"), [PORT]),
        (("--out-of-sync",), []),
        (("--in-sync",), [PORT, NODE]),
        (("--limit", "1"), [PORT]),
        (("--limit", "1", "--after", short(PORT)), [NODE]),
        (("--search", "ams*"), [NODE]),
        (("--search", "142 beta", "--product", "Port"), [PORT]),
        (("--search", "ams*", "--customer", "beta"), []),
    ):
        assert [one["subscription_id"] for one in cli.json("subscriptions", "list", *filters)] == [
            str(one) for one in found
        ], filters
    text = cli("subscriptions", "list", "--limit", "1").stdout
    assert "\x1b" not in text
    assert f"there may be more: --after {short(PORT)}" in text
    assert "no subscriptions" in cli("subscriptions", "list", "--out-of-sync").stdout


async def test_a_list_says_who_holds_what_is_out_of_sync(cli: Cli, rows: Rows) -> None:
    process = await hold(rows)
    node, port = cli.json("subscriptions", "list", "--out-of-sync"), cli.json("subscriptions", "list", "--in-sync")
    assert [one["held_by"] for one in (*node, *port)] == [
        {"process_id": str(process), "workflow": "holding", "status": "failed"},
        None,
    ]
    text = cli("subscriptions", "list", "--out-of-sync", COLUMNS="250").stdout
    assert f"no: holding, failed, {short(process)}" in text


def test_products_are_listed_with_what_a_start_needs(cli: Cli) -> None:
    listed = cli.json("products")
    assert [(one["name"], one["fixed_inputs"]) for one in listed] == [
        ("Node", [{"name": "speed", "value": "1000"}]),
        ("Port", []),
    ]
    text = cli("products").stdout
    assert all(word in text for word in (listed[0]["product_id"], "Node", "speed=1000", "create_node", "active"))
    by_id = cli.json("subscriptions", "list", "--product", listed[0]["product_id"])
    assert [one["subscription_id"] for one in by_id] == [str(NODE)]


async def test_a_subscription_is_shown_with_blocks_holder_and_neighbours(cli: Cli, rows: Rows) -> None:
    holder = await hold(rows)

    text = cli("subscriptions", "show", short(NODE)).stdout
    assert re.search(rf"out of sync, held by process {holder} \(holding, failed\)", text)
    assert re.search(r"product +Node  Node  speed=1000", text)
    assert re.search(r'node  NodeBlock  \S+  main\n  ims_id = 7\n  name = "ams-1 \[bold\]"\n', text)
    assert re.search(rf"in use by\n.*\n{PORT}  Port +initial  yes +port �\[31m7", text)
    assert "\nuses\n" not in text

    shown = cli.json("subscriptions", "show", str(PORT))
    assert (shown["subscription_id"], shown["holder"], shown["in_use_by"]) == (str(PORT), None, [])
    assert [one["subscription_id"] for one in shown["uses"]] == [str(NODE)]
    (port,) = shown["blocks"]
    assert (port["field"], port["name"], port["resources"]) == ("port", "PortBlock", {"vlan": 142})
    (node,) = port["blocks"]
    assert (node["field"], node["owner_subscription_id"], node["resources"]["ims_id"]) == ("node", str(NODE), 7)
    assert f"of subscription {NODE}" in cli("subscriptions", "show", str(PORT)).stdout


async def test_the_workflows_say_why_they_may_not_run(cli: Cli, rows: Rows) -> None:
    """B24, B26, B27, B28, B30: by the rules in the project's own modules."""

    def offers() -> dict[str, dict[str, object]]:
        return {one["name"]: one for one in cli.json("subscriptions", "workflows", short(NODE))}

    found = offers()
    assert {name: one["usable"] for name, one in found.items()} == {
        "modify_description": True,
        "modify_node": True,
        "provision_node": False,
        "terminate_node": False,
    }
    assert found["provision_node"]["reasons"] == [
        {
            "key": "subscription.no_modify_invalid_status",
            "status": "active",
            "usable_when": ["provisioning"],
            "action": "modified",
        }
    ]
    assert found["terminate_node"]["reasons"] == [
        {
            "key": "subscription.no_modify_subscription_in_use_by_others",
            "unterminated_in_use_by_subscriptions": [str(PORT)],
        }
    ]

    holder = await hold(rows, "running")
    found = offers()
    assert {name for name, one in found.items() if one["dangerous"]} == {"modify_description"}
    assert found["modify_node"]["reasons"] == [{"key": "subscription.not_in_sync", "locked_by": str(holder)}]
    text = cli("subscriptions", "workflows", str(NODE)).stdout
    assert re.search(r"modify_description +MODIFY +dangerous +about modify_description – out of sync", text)
    assert re.search(rf"modify_node +MODIFY +no +the subscription is out of sync: process {holder} holds it", text)
    assert f"other subscriptions that are not terminated use it: {PORT}" in text
    assert re.search(r"the subscription is active, the workflow runs on those that are provisioning", text)


def test_wrong_rules_are_reported_in_one_line(cli: Cli) -> None:
    (cli.folder / "ours" / "__init__.py").write_text(MAPS.replace('["provisioning"]', '"provisioning"'))

    failed = cli("subscriptions", "workflows", str(NODE), code=1)
    (line,) = cli.said(failed)
    assert line.startswith("WF_USABLE_MAP['provision_node'] must be a list of statuses")


async def test_the_history_reads_process_by_process_with_the_changes_where_they_belong(cli: Cli, rows: Rows) -> None:
    """B1."""
    workflow = await rows.workflow("grow", "MODIFY")
    process = await rows.process(workflow, "completed", NODE, started_by="eve")
    await rows.entry(process, 1, "Measure", "failed", failure={"type": "ValueError", "message": "too [b]small"})
    await rows.entry(process, 2, "Measure", attempt=2, delta={"size": 9})
    await rows.entry(process, 3, "Store", attempt=3)
    await rows.change(
        NODE, 2, {"node.size": [None, 9], "note": ["a\x1b", "b"]}, process=process, step="Store", attempt=3
    )
    await rows.change(NODE, 3, {"node.size": [9, 10]}, process=process, step="Lost", attempt=9)
    held = await hold(rows, "aborted")
    cli("subscriptions", "set-in-sync", short(NODE), "--reason", "looked at it", "--user", "bob")

    text = cli("subscriptions", "history", short(NODE)).stdout
    assert "\x1b" not in text
    lines = [re.sub(r"  version \d$", "", re.sub(r"\d{2,4}[-:]\d\d[-:]\d\d", "T", line)) for line in text.splitlines()]
    assert lines[0] == f"T T  grow  completed  started by eve  process {process}"
    assert re.match(r" +1  T  Measure  failed  try 1 .*by alice .*ValueError: too \[b\]small", lines[1])
    assert re.match(r" +2  T  Measure  success  try 2 .*by alice  size=9", lines[2])
    assert re.match(r" +3  T  Store  success", lines[3])
    assert lines[4:7] == [
        "        node.size: null → 9",
        '        note: "a\\u001b" → "b"',
        "        node.size: 9 → 10",
    ]
    assert lines[7] == f"T T  holding  aborted  started by alice  process {held}"
    assert lines[8:] == ["T T  changed  by bob  (looked at it)", "        insync: false → true"]

    found = cli.json("subscriptions", "history", short(NODE))
    assert [one["process_id"] for one in found["processes"]] == [str(process), str(held)]
    assert [entry["status"] for entry in found["processes"][0]["log"]] == ["failed", "success", "success"]
    assert [one["changes"] for one in found["processes"][0]["changes"]] == [
        {"node.size": [None, 9], "note": ["a\x1b", "b"]},
        {"node.size": [9, 10]},
    ]
    (change,) = found["other_changes"]
    assert (change["author"], change["note"], change["changes"]) == ("bob", "looked at it", {"insync": [False, True]})
    assert "nothing has happened" in cli("subscriptions", "history", short(PORT)).stdout


async def test_a_history_is_shown_page_by_page_the_last_first(cli: Cli, rows: Rows) -> None:
    process = await rows.process(await rows.workflow("grow", "MODIFY"), "completed", NODE)
    for version in range(2, 40):
        await rows.change(NODE, version, {"node.size": [version - 1, version]})

    def versions(*arguments: str) -> list[int]:
        text = cli("subscriptions", "history", short(NODE), *arguments).stdout
        return [int(found) for found in re.findall(r"version (\d+)", text)]

    text = cli("subscriptions", "history", short(NODE)).stdout
    assert versions() == list(range(10, 40))
    (more,) = re.findall(r"\nwhat happened before: orchestrator (.*)\n$", text)
    last = cli(*more.split()).stdout
    assert f"process {process}" in last.splitlines()[0]
    assert len(last.splitlines()) == 1 + 2 * 8
    assert "what happened before" not in last

    # By its number, and by the process: pages as large as is asked for, their size kept in the hint.
    text = cli("subscriptions", "history", short(NODE), "--limit", "38").stdout
    (more,) = re.findall(r"before: orchestrator (.*)\n$", text)
    assert "--limit 38 --before change-" in more
    assert cli(*more.split()).stdout.splitlines() == last.splitlines()[:1]
    assert "nothing happened before" in cli("subscriptions", "history", short(NODE), "--before", str(process)).stdout

    page = cli.json("subscriptions", "history", short(NODE), "--limit", "2")
    assert [one["version"] for one in page["other_changes"]] == [38, 39]
    assert page["before"] == f"change-{page['other_changes'][0]['change_id']}"
    page = cli.json("subscriptions", "history", short(NODE), "--before", page["before"])
    assert (len(page["processes"]), len(page["other_changes"]), page["before"]) == (0, 30, page["before"])
    assert cli.json("subscriptions", "history", short(NODE), "--limit", "39")["before"] is None

    refused = cli("subscriptions", "history", short(PORT), "--before", short(process), code=1)
    assert cli.said(refused) == [f"the process {process} is no part of the history of subscription {PORT}"]
    for nonsense in ("change-x", "change-99999999999999999999", "change-٣"):
        (line,) = cli.said(cli("subscriptions", "history", short(NODE), "--before", nonsense, code=1))
        assert "is not the id of a process" in line


async def test_ids_are_never_broken_in_a_terminal_of_eighty_columns(cli: Cli, rows: Rows) -> None:
    customer = str(uuid4())
    subscription = await rows.subscription(
        await rows.product("Port 100G"), status="provisioning", customer=customer, description="a long story " * 6
    )
    process = await rows.process(await rows.workflow("modify_port_speed", "MODIFY"), "awaiting_callback", NODE)
    await rows.entry(process, 1, "Order the work", delta={"subscription_id": str(NODE)})
    await rows.change(NODE, 2, {"node.port": [str(PORT), str(subscription)]}, process=process, step="Order the work")
    holder = await hold(rows, "running")

    for command, ids in (
        (("subscriptions", "list"), (subscription, customer, NODE, PORT)),
        (("subscriptions", "show", short(NODE)), (NODE, holder, PORT)),
        (("subscriptions", "show", short(PORT)), (PORT, NODE)),
        (("subscriptions", "history", short(NODE)), (process, NODE, PORT, subscription, holder)),
        (("subscriptions", "workflows", short(NODE)), (holder, PORT)),
        (("list",), (process, holder)),
        (("show", str(process)), (process, NODE)),
        (("workflows",), ()),
    ):
        lines = cli(*command, COLUMNS="80").stdout.splitlines()
        assert max(map(len, lines)) <= 80, command
        text = "\n".join(lines)
        assert [one for one in ids if str(one) not in text] == [], command


async def test_a_held_subscription_is_set_in_sync_once_its_process_is_finished(cli: Cli, rows: Rows) -> None:
    holder = await hold(rows)
    sync = ("subscriptions", "set-in-sync", short(NODE), "--reason", "repaired by hand")

    refused = cli(*sync, code=1)
    assert cli.said(refused)[0].startswith(f"the subscription {NODE} is held by process {holder} (holding, failed)")
    assert cli.json(*sync, code=1)["reasons"] == [
        {
            "key": "subscription.held_by_process",
            "process_id": str(holder),
            "workflow": "holding",
            "status": "failed",
        }
    ]
    await rows.pool.execute("UPDATE processes SET status = 'aborted'")
    assert "is in sync now" in cli(*sync).stdout
    assert cli.json(*sync) == {"subscription_id": str(NODE), "changed": False}
    assert cli.json("subscriptions", "show", str(NODE))["insync"] is True


def test_what_does_not_exist_is_reported_in_one_line(cli: Cli) -> None:
    nobody = str(uuid4())
    for command in ("show", "history", "workflows"):
        assert cli.said(cli("subscriptions", command, nobody, code=1)) == [f"there is no subscription {nobody}"]
    assert cli.said(cli("subscriptions", "show", "aaaa", code=1)) == [
        "'aaaa' is too short: give at least 8 characters of the subscription's id"
    ]
    assert cli.said(cli("subscriptions", "list", "--product", "Nod", code=1)) == ["there is no product 'Nod'"]
    assert cli.json("subscriptions", "show", nobody, code=1)["error"] == "NotFoundError"


def test_wrong_usage_is_distinguished_from_refusals(cli: Cli) -> None:
    cli("subscriptions", "set-in-sync", str(NODE), code=2)
    cli("subscriptions", "set-in-sync", str(NODE), "--reason", "  ", code=2)
    cli("subscriptions", "list", "--status", "activ", code=2)
