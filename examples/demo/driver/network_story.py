"""The second story: the life of a small network, and all that the rules forbid in it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from uuid import uuid4

import asyncpg

from .amqp import other_service, watching
from .checks import Check
from .corner import Corner
from .network import Network, NetworkBooks
from .network_checks import judge_network
from .programs import REPOSITORY, Programs
from .screen import Screen

OPERATOR = "NREN"
SUBSCRIPTIONS = 8


async def tell_of_network(screen: Screen, stack: AsyncExitStack, corner: Corner, programs: Programs) -> list[Check]:
    """The whole of it; returns what was checked."""
    network = await _set_up(screen, stack, corner, programs)
    await _create(network)
    await _refuse(network)
    await _change(network)
    await _validate(network)
    await _end(network)
    await judge_network(network)
    return network.checks


async def _set_up(screen: Screen, stack: AsyncExitStack, corner: Corner, programs: Programs) -> Network:
    heads = (await programs.command("db", "upgrade", "--json"))["heads"]
    screen.say(f"database {corner.name} migrated: {', '.join(heads)}")
    here = REPOSITORY / "examples"
    controller, url = await programs.start_talking(
        "controller", [sys.executable, here / "network" / "controller_program.py"]
    )
    worker, _ = await programs.start_talking(
        "field-worker", [sys.executable, here / "demo" / "field_worker.py"], {"FIELD_AMQP_URL": corner.field_url}
    )
    coordinator, consumers = await programs.start_engine(
        {"NETWORK_CONTROLLER_URL": url, "NETWORK_AMQP_URL": corner.amqp_url}
    )
    pids = ", ".join(str(one.pid) for one in (coordinator, *consumers))
    screen.say(
        f"network controller ({controller.pid}), field worker ({worker.pid}), the engine's programs ({pids}) run"
    )
    pool = await stack.enter_async_context(asyncpg.create_pool(corner.dsn, min_size=1, max_size=4, timeout=60))
    service = await stack.enter_async_context(other_service(corner.service_url, screen.patience))
    network = Network(screen, corner, programs, NetworkBooks(pool), service, url)
    await stack.enter_async_context(watching(corner.amqp_url, network.see))
    return network


async def _create(network: Network) -> None:
    network.screen.headline("Two nodes, four ports on them, a core link and an L2VPN over the ports")
    await network.learn_products("create_node", "create_port", "create_core_link", "create_l2vpn")
    node = {"customer_id": OPERATOR, "role": "PE"}
    ams = {**node, "node_name": "ams-1", "management_address": "2001:db8::a"}
    utr = {**node, "node_name": "utr-1", "management_address": "2001:db8::b"}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(network.create("ams-1", "create_node", "Node Cisco", ams, by_hand=True))
        tasks.create_task(network.create("utr-1", "create_node", "Node Nokia", utr))
    async with asyncio.TaskGroup() as tasks:
        for name in ("ams-1", "utr-1"):
            port = {"customer_id": OPERATOR, "node": network.known[name]}
            core, edge = {**port, "port_name": "et-0/0/0"}, {**port, "port_name": "xe-0/0/1"}
            tasks.create_task(network.create(f"{name} core", "create_port", "Port 100G", core))
            tasks.create_task(network.create(f"{name} edge", "create_port", "Port 10G", edge))
    link = {
        "customer_id": OPERATOR,
        "port_a": network.known["ams-1 core"],
        "port_b": network.known["utr-1 core"],
        "ipv6_prefix": "2001:db8:1::/127",
    }
    ends = [{"port": network.known[f"{name} edge"], "vlan": 100} for name in ("ams-1", "utr-1")]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(network.create("link", "create_core_link", "Core link", link, by_hand=True))
        tasks.create_task(
            network.create("vpn", "create_l2vpn", "L2VPN", {"customer_id": "Bakery", "attachments": ends})
        )
    listed = await network.programs.command("subscriptions", "list", "--json")
    wrong = [one["description"] for one in listed if one["status"] != "active" or not one["insync"]]
    network.expect("all subscriptions are active and in sync", ", ".join(wrong))
    network.expect("each start has made one subscription", "" if len(listed) == SUBSCRIPTIONS else listed)
    missing = set(network.known.values()) ^ set(await network.all_configured())
    network.expect("the network controller has configured each of them", missing)
    network.screen.headline("orchestrator subscriptions list")
    network.screen.plain(await network.programs.command("subscriptions", "list"))
    network.screen.headline("orchestrator subscriptions show, of the L2VPN")
    network.screen.plain(await network.programs.command("subscriptions", "show", network.known["vpn"]))


async def _refuse(network: Network) -> None:
    network.screen.headline("What the rules forbid")
    known = network.known
    ports = tuple(known[f"ams-1 {end}"] for end in ("core", "edge"))
    await network.refused(
        "a node in use is not terminated, and its ports are named",
        "terminate_node",
        {"subscription_id": known["ams-1"]},
        key="subscription.no_modify_subscription_in_use_by_others",
        naming=ports,
    )
    await network.refused(
        "this project keeps the speed of a port that is in use",
        "change_port_speed",
        {"subscription_id": known["ams-1 edge"]},
        {"new_product": network.products["Port 100G"]},
        key="subscription.no_modify_subscription_in_use_by_others",
        naming=(known["vpn"],),
    )
    await network.refused(
        "an unknown product is no choice",
        "create_node",
        {"product": str(uuid4())},
        key="form.invalid",
        naming=("product",),
    )
    await network.refused(
        "an L2VPN's workflow is none of a node's",
        "validate_l2vpn",
        {"subscription_id": known["ams-1"]},
        key="subscription.workflow_not_of_product",
    )
    holder = await _start_two_at_once(network)
    await _try_while_held(network, holder)
    await network.give_input(holder, {"approved_by": "Noor"})
    await network.rest(holder)
    found = await network.configured("ams-1") or {}
    network.expect(
        "the one that went on has moved the node",
        "" if found.get("management_address") in {"2001:db8::a1", "2001:db8::a2"} else found,
    )
    await network.refused(
        "who has looked at an older version must look again",
        "modify_node",
        {"subscription_id": known["ams-1"], "version": 1},
        {"management_address": "2001:db8::ff"},
        key="subscription.stale_version",
    )


async def _start_two_at_once(network: Network) -> str:
    """Two people change one node at the same instant; return the process that has the lock."""
    network.screen.say("two modifications of ams-1 are started at the same instant", "bold")
    page = {"subscription_id": network.known["ams-1"]}
    answers = await asyncio.gather(
        *(network.service.start("modify_node", page, {"management_address": f"2001:db8::a{n}"}) for n in (1, 2))
    )
    started = [str(one.body["process_id"]) for one in answers if one.type == "workflow.started"]
    refused = [one.body for one in answers if one.type != "workflow.started"]
    suspended: list[str] = []
    failed: list[str] = []
    for process_id in started:

        async def decided(one: str = process_id) -> str:
            status = (await network.books.standing(one)).status
            return status if status in {"suspended", "failed"} else ""

        status = await network.programs.until("each of the two goes on, or cannot lock", decided)
        (suspended if status == "suspended" else failed).append(process_id)
    for process_id in failed:
        standing = await network.books.standing(process_id)
        network.screen.say(f"modify_node {process_id[:8]} stopped at '{standing.step}': {standing.failure}", "yellow")
        network.expect(
            "the other one has not got the lock, and is told who has", standing.step != "Lock subscription" and standing
        )
        await network.programs.command("abort", process_id, "--reason", "the other one does it", "--json")
    for body in refused:
        network.screen.say(f"modify_node refused: {body.get('error')}: {body.get('detail')}", "yellow")
    one_each = len(suspended) == 1 and len(failed) + len(refused) == 1
    network.expect("exactly one of the two goes on", "" if one_each else f"{suspended} go on, {failed} fail, {refused}")
    return suspended[0]


async def _try_while_held(network: Network, holder: str) -> None:
    """A process holds ams-1 while somebody thinks about its approval."""
    known = network.known
    await network.refused(
        "a subscription that a process holds is not modified, and the process is named",
        "modify_note",
        {"subscription_id": known["ams-1"]},
        {"note": "in a hurry"},
        key="subscription.not_in_sync",
        naming=(holder,),
    )
    await network.refused(
        "nor are those that use it",
        "modify_port",
        {"subscription_id": known["ams-1 edge"]},
        {"enabled": False},
        key="subscription.relations_not_in_sync",
        naming=(known["ams-1"],),
    )
    await network.on("modify_description", "ams-1", {"description": "ams-1, the one that moves"})
    held = await network.books.subscription(known["ams-1"])
    network.expect(
        "a workflow that the project lists runs all the same, and leaves the lock alone",
        "" if str(held["locked_by"]) == holder and held["description"].endswith("that moves") else held,
    )
    network.screen.headline(f"orchestrator subscriptions workflows {known['ams-1'][:8]}")
    network.screen.plain(await network.programs.command("subscriptions", "workflows", known["ams-1"]))
    network.screen.console.print()


async def _change(network: Network) -> None:
    network.screen.headline("Changes")
    vpn = network.known["vpn"]
    before = await network.books.subscription(vpn)
    page = {"subscription_id": vpn, "version": before["version"]}
    await network.rest(await network.start("modify_l2vpn", page, {"vlan_1": 100, "vlan_2": 207}))
    found = await network.configured("vpn") or {}
    vlans = [end["vlan"] for end in found.get("ends", [])]
    network.expect("the L2VPN has its new VLAN, in the network, too", "" if vlans == [100, 207] else found)
    await network.on("modify_note", "vpn", {"note": "The customer calls it 'oven'."})
    after = await network.books.subscription(vpn)
    network.expect(
        "note, description and version have changed",
        ""
        if after["note"] and "207" in after["description"] and after["version"] > before["version"]
        else {name: after[name] for name in ("note", "description", "version")},
    )


async def _validate(network: Network) -> None:
    network.screen.headline("Validations, and a router that somebody has changed by hand")
    await network.all_on(("validate_port", "utr-1 edge"), ("validate_l2vpn", "vpn"), ("validate_core_link", "link"))
    await network.rest(await network.start("validate_all_nodes"))
    await network.change_behind_our_back("utr-1 edge", enabled=False)
    validation = await network.on("validate_port", "utr-1 edge", wanted="inconsistent_data")
    standing = await network.books.standing(validation)
    network.screen.say(f"found: {standing.failure}", "red")
    network.expect("the NOC is to look at it", "" if standing.assignee == "NOC" else standing)
    port = await network.books.subscription(network.known["utr-1 edge"])
    network.expect("the port stays out of sync until somebody has", port["insync"])
    await network.on("reconcile_service", "utr-1 edge")
    network.expect(
        "reconciling has put it right",
        not ((await network.configured("utr-1 edge")) or {}).get("enabled") and "it has not",
    )
    await network.programs.command("retry", validation, "--user", "noor", "--json")
    await network.rest(validation)
    port = await network.books.subscription(network.known["utr-1 edge"])
    network.expect("the same validation, retried, has found nothing, and the port is in sync again", not port["insync"])


async def _end(network: Network) -> None:
    network.screen.headline("The end, in the right order; a port gets another product on the way")
    await network.all_on(("terminate_l2vpn", "vpn"), ("terminate_core_link", "link"))
    before = await network.books.subscription(network.known["ams-1 edge"])
    await network.on("change_port_speed", "ams-1 edge", {"new_product": network.products["Port 100G"]})
    after = await network.books.subscription(network.known["ams-1 edge"])
    speed = ((await network.configured("ams-1 edge")) or {}).get("speed")
    network.expect(
        "nothing runs over the port any more, and it is another product's now",
        ""
        if (before["product"], after["product"], speed) == ("Port 10G", "Port 100G", 100)
        else f"{before['product']} → {after['product']}, {speed}",
    )
    ports = [f"{name} {end}" for name in ("ams-1", "utr-1") for end in ("core", "edge")]
    await network.all_on(*(("terminate_port", port) for port in ports))
    await network.all_on(("terminate_node", "ams-1"), ("terminate_node", "utr-1"))
    network.expect("the network controller has nothing left", ", ".join(await network.all_configured()))
    network.screen.headline("orchestrator subscriptions history, of the port that has changed its speed")
    network.screen.plain(await network.programs.command("subscriptions", "history", network.known["ams-1 edge"]))
