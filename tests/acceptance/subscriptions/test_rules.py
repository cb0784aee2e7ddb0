"""Which workflow may run on which subscription: the rules, the project's changes of them, and the reasons on every door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.subscriptions.network import Network
from tests.acceptance.waiting import until

NOT_IN_SYNC, RELATIONS = "subscription.not_in_sync", "subscription.relations_not_in_sync"
STATUS, IN_USE = "subscription.no_modify_invalid_status", "subscription.no_modify_subscription_in_use_by_others"


@pytest.fixture
def held(network: Network) -> Iterator[tuple[UUID, UUID]]:
    """A node that a process holds, which waits in a step of its author's; and the process."""
    node = network.node()
    process_id = network.held_at("rename", "modify_node", node, {"node_name": "held"})
    yield node, process_id
    network.let_go(process_id)
    network.wait_for(process_id, "completed")


def started(network: Network, workflow: str, subscription_id: UUID, page: dict[str, Any] | None = None) -> str:
    """Run a workflow and return the status that the subscription then has."""
    network.finish_on(workflow, subscription_id, page)
    return str(network.row(subscription_id)["status"])


def test_workflows_run_on_active_subscriptions_unless_the_map_of_the_project_says_otherwise(network: Network) -> None:
    """B24, B30: the seed's first example, in the project's ``workflows/__init__.py``, in coordinator and command line."""
    node = network.enrolled()
    (reason,) = network.reasons("modify_note", node)
    assert reason == {"key": STATUS, "status": "provisioning", "usable_when": ["active"], "action": "modified"}
    offers = network.offers(node)
    assert {name: one["usable"] for name, one in offers.items()} == {
        "validate_node_enrollment": True,
        "provision_node_enrollment": True,
        "modify_node_enrollment": True,
        "terminate_node_enrollment": True,
        "modify_description": False,
        "modify_note": False,
    }
    assert offers["modify_note"]["reasons"] == [reason]
    assert started(network, "validate_node_enrollment", node) == "provisioning"
    assert started(network, "modify_node_enrollment", node, {"node_name": "new"}) == "provisioning"
    assert started(network, "provision_node_enrollment", node, {}) == "active"

    (reason,) = network.reasons("modify_node_enrollment", node, {"node_name": "newer"})
    assert reason == {"key": STATUS, "status": "active", "usable_when": ["provisioning"], "action": "modified"}
    assert started(network, "validate_node_enrollment", node) == "active"
    assert started(network, "provision_node_enrollment", node, {}) == "active"
    assert started(network, "modify_note", node, {"note": "now I may"}) == "active"
    assert network.block(node)["node_name"] == "new"


def test_terminate_workflows_run_in_any_lifecycle_unless_the_map_restricts_them(network: Network) -> None:
    """B25: on one that never became active; and not on an active one when the map says so."""
    network.open_gate("break-number-unborn")
    process_id = network.start_node(tag="unborn")
    network.wait_for(process_id, "failed")
    node = network.subscription_of(process_id)
    network.abort(process_id)
    network.command("subscriptions", "set-in-sync", str(node), "--reason", "nothing was done outside")
    assert [reason["key"] for reason in network.reasons("modify_node", node)] == [STATUS]
    assert started(network, "terminate_node", node, {}) == "terminated"
    network.finish_on("terminate_node", node, {})

    restricted = network.enrolled()
    network.finish_on("provision_node_enrollment", restricted, {})
    (reason,) = network.reasons("terminate_node_enrollment", restricted, {})
    assert reason == {"key": STATUS, "status": "active", "usable_when": ["provisioning"], "action": "terminated"}
    assert started(network, "terminate_node_enrollment", network.enrolled(), {}) == "terminated"


def test_what_is_used_cannot_be_terminated_until_its_users_are(network: Network) -> None:
    """B26: the refusal names the users; blocks of a line stand below its ports, whose nodes belong to others."""
    first, second = network.node(), network.node()
    line, other = network.line(first, second), network.line(first)
    (reason,) = network.reasons("terminate_node", first, {})
    assert reason == {"key": IN_USE, "unterminated_in_use_by_subscriptions": sorted([str(line), str(other)])}
    assert network.reasons("terminate_node", second, {})[0]["unterminated_in_use_by_subscriptions"] == [str(line)]
    network.finish_on("modify_node", first, {"node_name": "renamed while in use"})

    network.finish_on("terminate_line", line, {})
    assert network.reasons("terminate_node", first, {})[0]["unterminated_in_use_by_subscriptions"] == [str(other)]
    assert started(network, "terminate_node", second, {}) == "terminated"
    network.finish_on("terminate_line", other, {})
    assert started(network, "terminate_node", first, {}) == "terminated"
    shown = network.json("subscriptions", "show", str(first))
    assert {one["subscription_id"] for one in shown["in_use_by"]} == {str(line), str(other)}, "history stays"


def test_what_comes_into_use_while_it_is_being_terminated_is_not_terminated(network: Network) -> None:
    """B26: a line is made on the node between the start of the terminate workflow and its end."""
    node, far = network.node(), network.node()
    process_id = network.held_at("remove", "terminate_node", node, {})
    page = {"first": str(far), "nodes": [str(node)]}
    network.finish("create_line", {"product": network.product("Line 1G")}, page)
    network.let_go(process_id)
    until(lambda: network.status(process_id) in {"completed", "failed"}, "the terminate workflow comes to an end")
    status = network.status(process_id)
    network.abort(process_id)
    assert status == "failed"


def test_the_project_decides_what_else_users_block_and_what_they_do_not(network: Network) -> None:
    """B26, B30: the seed's second example adds a modify workflow; ``False`` frees a terminate workflow."""
    node = network.enrolled()
    network.finish_on("modify_node_enrollment", node, {"node_name": "unused"})
    line = network.line(node)
    (reason,) = network.reasons("modify_node_enrollment", node, {"node_name": "used"})
    assert reason == {"key": IN_USE, "unterminated_in_use_by_subscriptions": [str(line)]}
    assert network.offers(node)["modify_node_enrollment"]["reasons"] == [reason]
    assert started(network, "terminate_node_enrollment", node, {}) == "terminated"


def test_only_tasks_reconciling_and_what_is_listed_run_on_a_held_subscription(
    network: Network, held: tuple[UUID, UUID]
) -> None:
    """B27, B28, B30: the seed's third example is offered as dangerous; what it changes is stored, the lock stays."""
    node, process_id = held
    for workflow, page in (("modify_node", {"node_name": "x"}), ("modify_note", {"note": "x"}), ("terminate_node", {})):
        (reason,) = network.reasons(workflow, node, page)
        assert reason == {"key": NOT_IN_SYNC, "locked_by": str(process_id)}
    offers = network.offers(node)
    usable = {name for name, one in offers.items() if one["usable"]}
    assert usable == {"modify_description", "validate_node", "reconcile_node"}
    assert [name for name, one in offers.items() if one["dangerous"]] == ["modify_description"]

    network.finish_on("validate_node", node)
    network.finish_on("modify_description", node, {"description": "changed meanwhile"})
    row = network.row(node)
    assert (row["description"], row["insync"], row["locked_by"]) == ("changed meanwhile", False, process_id)
    network.finish_on("reconcile_node", node)
    assert network.row(node)["locked_by"] == process_id
    # The holder has loaded the node before it was changed twice.
    network.let_go(process_id)
    assert "ConcurrentChangeError" in network.wait_for_failure(process_id)
    network.retry(process_id)
    network.finished(process_id)
    assert network.row(node)["description"] == "changed meanwhile"
    assert network.block(node)["tags"] == ["repaired"]
    assert network.block(node)["node_name"] == "held"


def test_neighbours_of_a_held_subscription_must_hold_still_in_both_directions(network: Network) -> None:
    """B28: with the ids of the neighbours; their own neighbours do not count. A choice of subscriptions leaves it out."""
    node, far = network.node(), network.node()
    line = network.line(node, far)
    holder = network.held_at("rename", "modify_node", node, {"node_name": "held"})
    assert network.reasons("modify_line", line, {"vlan": 5}) == [{"key": RELATIONS, "locked_relations": [str(node)]}]
    assert network.offers(line)["modify_description"]["dangerous"] is True
    network.finish_on("modify_node", far, {"node_name": "two steps away"})
    choice = network.refused("create_line", {"product": network.product("Line 1G")}, {"first": str(node)})
    assert [reason["loc"] for reason in choice["reasons"]] == [["first"]]
    network.let_go(holder)
    network.finished(holder)

    holder = network.held_at("vlan", "modify_line", line, {"vlan": 6})
    assert network.reasons("modify_node", node, {"node_name": "x"}) == [
        {"key": RELATIONS, "locked_relations": [str(line)]}
    ]
    keys = [reason["key"] for reason in network.reasons("terminate_node", node, {})]
    assert keys == [RELATIONS, IN_USE]
    network.let_go(holder)
    network.finished(holder)
    network.finish_on("modify_node", node, {"node_name": "free again"})


def test_the_same_words_and_reasons_come_on_every_entry_point(network: Network, held: tuple[UUID, UUID]) -> None:
    """B31, B39: by message and on the command line; the subscription is judged before the next page is asked for."""
    node, _ = held
    first = {"subscription_id": str(node)}
    by_message = network.refused("modify_node", first)
    assert by_message["error"] == "WorkflowNotUsableError"
    assert network.refused("modify_node", first, {"node_name": "x"})["reasons"] == by_message["reasons"]
    outcome = network.command("start", "modify_node", "--input", json.dumps(first), "--json", exit_code=1)
    assert json.loads(outcome.stdout) == by_message
    assert by_message["detail"] in outcome.stderr
    assert "Traceback" not in outcome.stderr
    in_words = network.command("start", "modify_node", "--input", json.dumps(first), exit_code=1)
    assert f"process {held[1]} holds it" in in_words.stderr


def test_create_workflows_never_run_on_a_subscription_that_exists(network: Network) -> None:
    """B17, B28: they are not offered; another product's workflows are refused with a reason of their own."""
    node = network.node()
    assert "create_node" not in network.offers(node)
    reasons = network.reasons("modify_line", node, {"vlan": 7})
    assert reasons == [{"key": "subscription.workflow_not_of_product", "product": "Node P"}]
    body = network.refused_on("create_node", node, {"node_name": "again"})
    assert body["error"] == "InvalidInputError"


def test_rules_that_can_never_be_right_keep_every_program_from_starting(network: Network) -> None:
    """B30: in one line that names the map, the workflow and the value."""
    module = network.folder / "wrong_rules.py"
    rule = 'WF_USABLE_MAP["modify_node"] = ["aktive"]'
    module.write_text(f"from orchestrator.services.subscriptions import WF_USABLE_MAP\n{rule}\n")
    for program in ("coordinator", "consumer", "start modify_node"):
        outcome = network.command(*program.split(), ORCHESTRATOR_WORKFLOWS="wrong_rules", exit_code=1)
        (line,) = outcome.stderr.strip().splitlines()
        assert "WF_USABLE_MAP['modify_node'] has the status 'aktive'" in line
