"""The second story: the life of a small network, and all that the rules forbid in it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

from .entrance import MessagesAndCommands
from .network import Network
from .over_http import OverHttp
from .patience import DemoError
from .stage import NO_STEP_TWICE, Stage

OPERATOR = "NREN"
SUBSCRIPTIONS = 8
IN_USE = "subscription.no_modify_subscription_in_use_by_others"

_FACTS = {
    "every process has ended": """
        SELECT workflow || ': ' || status FROM processes WHERE status NOT IN ('completed', 'aborted')""",
    "none was aborted but the one that came second": """
        SELECT process_id FROM processes WHERE status = 'aborted' ORDER BY started_at OFFSET 1""",
    "no step has succeeded twice": NO_STEP_TWICE,
    "each version of each subscription has its entry in the audit trail": """
        SELECT description FROM subscriptions s WHERE ARRAY(SELECT generate_series(1, s.version)) <> ARRAY
               (SELECT DISTINCT c.version FROM subscription_changes c WHERE c.subscription_id = s.subscription_id ORDER BY 1)""",
    "each change was made by a process, and has an author": """
        SELECT change_id FROM subscription_changes WHERE process_id IS NULL OR coalesce(author, '') = ''""",
}
"""What must be true at the end, and a query for what is wrong with it."""

_LINKS = "SELECT process_id::text FROM processes_subscriptions WHERE subscription_id = $1"


def tell_of_network(stage: Stage) -> None:
    """Tell the story by messages and on the command line, and check on the way."""
    _tell(Network(stage, MessagesAndCommands(stage)))


def tell_of_network_over_http(stage: Stage) -> None:
    """Tell the same story by requests to the HTTP API alone."""
    _tell(Network(stage, OverHttp(stage, stage.serve())))


def _tell(network: Network) -> None:
    stage = network.stage
    stage.see = network.see
    for part in (_create, _refuse, _change, _validate, _end, _check):
        part(network)


def _create(network: Network) -> None:
    network.stage.screen.headline("Two nodes, four ports on them, a core link and an L2VPN over the ports")
    network.learn_products("create_node", "create_port", "create_core_link", "create_l2vpn")
    known, create = network.known, network.create
    node = {"customer_id": OPERATOR, "role": "PE"}
    ams = {**node, "node_name": "ams-1", "management_address": "2001:db8::a"}
    utr = {**node, "node_name": "utr-1", "management_address": "2001:db8::b"}
    nodes = ("ams-1", "create_node", "Node Cisco", ams), ("utr-1", "create_node", "Node Nokia", utr)
    create(*nodes, by_hand=True)
    port = {"customer_id": OPERATOR}
    core, edge = {**port, "port_name": "et-0/0/0"}, {**port, "port_name": "xe-0/0/1"}
    create(
        *((f"{name} core", "create_port", "Port 100G", {**core, "node": known[name]}) for name in ("ams-1", "utr-1")),
        *((f"{name} edge", "create_port", "Port 10G", {**edge, "node": known[name]}) for name in ("ams-1", "utr-1")),
    )
    ends = {"port_a": known["ams-1 core"], "port_b": known["utr-1 core"]}
    link = {"customer_id": OPERATOR, **ends, "ipv6_prefix": "2001:db8:1::/127"}
    attachments = [{"port": known[f"{name} edge"], "vlan": 100} for name in ("ams-1", "utr-1")]
    vpn = {"customer_id": "Bakery", "attachments": attachments}
    create(("link", "create_core_link", "Core link", link), ("vpn", "create_l2vpn", "L2VPN", vpn), by_hand=True)
    listed = network.entrance.subscriptions()
    wrong = [one["description"] for one in listed if one["status"] != "active" or not one["insync"]]
    network.expect_none("all subscriptions are active and in sync", wrong)
    network.expect("each start has made one subscription", len(listed) == SUBSCRIPTIONS, listed)
    network.expect_none(
        "the network controller has configured each of them", set(known.values()) ^ network.all_configured()
    )
    network.entrance.show("list")
    network.entrance.show("show", known["vpn"])


def _refuse(network: Network) -> None:
    network.stage.screen.headline("What the rules forbid")
    known, refused = network.known, network.refused
    ams, edge = {"subscription_id": known["ams-1"]}, {"subscription_id": known["ams-1 edge"]}
    ports = (known["ams-1 core"], known["ams-1 edge"])
    faster = {"new_product": network.products["Port 100G"]}
    refused("a node in use is not terminated, and its ports are named", "terminate_node", ams, key=IN_USE, naming=ports)
    what = "this project keeps the speed of a port that is in use"
    refused(what, "change_port_speed", edge, faster, key=IN_USE, naming=(known["vpn"],))
    unknown = {"product": str(uuid4())}
    refused("an unknown product is no choice", "create_node", unknown, key="form.invalid", naming=("product",))
    what = "an L2VPN's workflow is none of a node's"
    refused(what, "validate_l2vpn", ams, key="subscription.workflow_not_of_product")

    holder = _start_two_at_once(network)
    what, key = (
        "a subscription that a process holds is not modified, and the process is named",
        "subscription.not_in_sync",
    )
    refused(what, "modify_note", ams, {"note": "in a hurry"}, key=key, naming=(holder,))
    key = "subscription.relations_not_in_sync"
    refused("nor are those that use it", "modify_port", edge, {"enabled": False}, key=key, naming=(known["ams-1"],))
    network.on("modify_description", "ams-1", {"description": "ams-1, the one that moves"})
    held = network.subscription("ams-1")
    right = str(held["locked_by"]) == holder and held["description"].endswith("that moves")
    network.expect("a workflow that the project lists runs all the same, and leaves the lock alone", right, held)
    network.entrance.show("workflows", known["ams-1"])
    network.stage.screen.console.print()

    network.give_input(holder, {"approved_by": "Noor"})
    network.rest(holder)
    address = (network.configured("ams-1"))["management_address"]
    moved = address in {"2001:db8::a1", "2001:db8::a2"}
    network.expect("the one that went on has moved the node", moved, address)
    what, page = "who has looked at an older version must look again", {"management_address": "2001:db8::ff"}
    refused(what, "modify_node", {**ams, "version": 1}, page, key="subscription.stale_version")


def _start_two_at_once(network: Network) -> str:
    """Let two people change one node at the same instant; return the process that has the lock."""
    stage = network.stage
    stage.screen.say("two modifications of ams-1 are started at the same instant", "bold")
    ams = {"subscription_id": network.known["ams-1"]}
    pages = [{"management_address": f"2001:db8::a{number}"} for number in (1, 2)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda page: network.entrance.ask_to_start("modify_node", ams, page), pages))
    refused = [one.detail for one in answers if one.process_id is None]
    found: dict[str, list[str]] = {"suspended": [], "failed": []}
    for process_id in [one.process_id for one in answers if one.process_id is not None]:

        def decided(process_id: str = process_id) -> str | None:
            status = (network.standing(process_id))["status"]
            return status if status in found else None

        found[stage.until("each of the two goes on, or cannot lock", decided)].append(process_id)
    if not len(found["suspended"]) == len(found["failed"]) + len(refused) == 1:
        raise DemoError(f"not exactly one of the two goes on: {found}, refused: {refused}")
    network.expect("exactly one of the two goes on", holds=True)
    (holder,) = found["suspended"]
    for process_id in found["failed"]:
        standing = network.standing(process_id)
        step, failure = standing["step"], standing["failure"]
        stage.screen.say(f"modify_node {process_id[:8]} stopped at '{step}': {failure}", "yellow")
        right = step == "Lock subscription" and holder in failure
        network.expect("the other one does not get the lock, and its error names who has it", right, standing)
        network.entrance.abort(process_id, "the other one does it")
    for detail in refused:
        stage.screen.say(f"modify_node refused: {detail}", "yellow")
    return holder


def _change(network: Network) -> None:
    network.stage.screen.headline("Changes")
    before = network.subscription("vpn")
    network.on("modify_l2vpn", "vpn", {"vlan_1": 100, "vlan_2": 207}, version=before["version"])
    vlans = [end["vlan"] for end in (network.configured("vpn"))["ends"]]
    network.expect("the L2VPN has its new VLAN, in the network, too", vlans == [100, 207], vlans)
    network.on("modify_note", "vpn", {"note": "The customer calls it 'oven'."})
    after = network.subscription("vpn")
    right = after["note"] and "207" in after["description"] and after["version"] > before["version"]
    network.expect("note, description and version have changed", right, after)


def _validate(network: Network) -> None:
    network.stage.screen.headline("Validations, and a router that was changed by hand")
    network.all_on(("validate_port", "utr-1 edge"), ("validate_l2vpn", "vpn"), ("validate_core_link", "link"))
    network.rest(network.start("all", "validate_all_nodes"))
    network.change_on_router("utr-1 edge", enabled=False)
    validation = network.on("validate_port", "utr-1 edge", wanted="inconsistent_data")
    standing = network.standing(validation)
    network.stage.screen.say(f"found: {standing['failure']}", "red")
    network.expect("the NOC is to look at it", standing["assignee"] == "NOC", standing)
    port = network.subscription("utr-1 edge")
    network.expect("the port stays out of sync until then", not port["insync"], port)
    network.on("reconcile_service", "utr-1 edge")
    found = network.configured("utr-1 edge")
    network.expect("reconciling has put it right", found["enabled"], found)
    network.entrance.retry(validation)
    network.rest(validation)
    port = network.subscription("utr-1 edge")
    network.expect(
        "the same validation, retried, has found nothing, and the port is in sync again", port["insync"], port
    )


def _end(network: Network) -> None:
    network.stage.screen.headline("The end, in the right order; a port gets another product on the way")
    network.all_on(("terminate_l2vpn", "vpn"), ("terminate_core_link", "link"))
    before = (network.subscription("ams-1 edge"))["product"]
    network.on("change_port_speed", "ams-1 edge", {"new_product": network.products["Port 100G"]})
    after, speed = (
        (network.subscription("ams-1 edge"))["product"],
        (network.configured("ams-1 edge"))["speed"],
    )
    right = (before, after, speed) == ("Port 10G", "Port 100G", 100)
    what = "nothing runs over the port any more, and it is another product's now"
    network.expect(what, right, f"{before} → {after}, {speed}")
    ports = [f"{name} {end}" for name in ("ams-1", "utr-1") for end in ("core", "edge")]
    network.all_on(*(("terminate_port", port) for port in ports))
    network.all_on(("terminate_node", "ams-1"), ("terminate_node", "utr-1"))
    network.expect_none("the network controller has nothing left", network.all_configured())
    network.entrance.show("history", network.known["ams-1 edge"])


def _check(network: Network) -> None:
    """Count at the end, from rows and from what the command line prints."""
    stage, expect, expect_none = network.stage, network.expect, network.expect_none
    stage.screen.headline("Is everything as it should be?")
    processes = stage.processes()
    columns = "workflow process started_by status steps tried_again seconds"
    stage.screen.table(processes, columns)
    stage.screen.console.print()
    stage.expect_facts(_FACTS, indent=8)
    again = any(one["tried_again"] for one in processes)
    expect("a busy controller was asked again, by the engine itself", again, "nothing was tried again")
    listed = network.entrance.subscriptions()
    left = [
        one["description"]
        for one in listed
        if (one["status"], one["insync"], one["locked_by"]) != ("terminated", True, None) or not one["end_date"]
    ]
    expect_none("every subscription is terminated, with an end date, and in sync; none is deleted", left)
    port = network.known["ams-1 edge"]
    history = network.entrance.history(port)
    linked = set(stage.values(_LINKS, UUID(port)))
    expect_none(
        "the history has every process that has touched the port", linked ^ {one["process_id"] for one in history}
    )
    wanted = ["create_port", "change_port_speed", "terminate_port"]
    names = [one["workflow"] for one in history]
    expect("from its creation to its end", [name for name in names if name in wanted] == wanted, names)
    expect_none("no message was dead-lettered", stage.client.dead_letters())
