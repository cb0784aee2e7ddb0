"""Validating and reconciling: looking at a subscription whoever else is at work on it."""

from __future__ import annotations

from uuid import uuid4

from tests.acceptance.subscriptions.network import Network


def test_a_failed_assertion_of_a_validation_means_inconsistent_data_for_the_noc(network: Network) -> None:
    """B20: with the author's words; whatever else is raised is a failure like any other; a retry goes on."""
    name = f"v-{uuid4().hex[:6]}"
    node = network.node(node_name=name)
    network.open_gate(f"wrong-{name}")
    process_id = network.on("validate_node", node)
    failure = network.wait_for_failure(process_id, "inconsistent_data")
    assert failure.startswith(f"AssertionError: the network calls {name} something else")
    shown = network.json("show", str(process_id))
    assert (shown["status"], shown["assignee"], shown["is_task"]) == ("inconsistent_data", "NOC", True)

    network.open_gate(f"break-compare-{name}")
    network.retry(process_id)
    assert network.wait_for_failure(process_id).startswith("RuntimeError")
    for gate in (f"break-compare-{name}", f"wrong-{name}"):
        network.close_gate(gate)
    network.retry(process_id)
    network.finished(process_id)
    assert network.is_free(node)
    assert network.json("show", str(process_id))["assignee"] == "SYSTEM"
    assert network.steps(process_id)[:3] == [
        "Start",
        "Link process to subscription",
        "Lock subscription without checking",
    ]


def test_a_failed_assertion_of_a_workflow_that_is_no_task_is_an_ordinary_failure(network: Network) -> None:
    """B20: only validations judge the data."""
    node = network.node()
    process_id = network.on("move_node", node, {"new_product": str(uuid4())})
    assert "NotFoundError" in network.wait_for_failure(process_id)
    assert network.json("show", str(process_id))["assignee"] == "SYSTEM"
    network.abort(process_id)


def test_a_validation_takes_the_subscription_and_nothing_else(network: Network) -> None:
    """B20: no version, no further page."""
    node = network.node()
    first = {"subscription_id": str(node)}
    assert network.refused("validate_node", first, {"more": 1})["error"] == "InvalidInputError"
    assert network.refused("validate_node", first | {"version": 1})["error"] == "InvalidInputError"
    form = network.refused("validate_node")["form"]
    assert list(form["properties"]) == ["subscription_id"]
    assert list(network.refused("modify_node")["form"]["properties"]) == ["subscription_id", "version"]


def test_validations_leave_a_lock_that_is_not_theirs(network: Network) -> None:
    """B20: one stopped with inconsistent data holds the lock; another runs all the same, and the first keeps it."""
    name = f"v-{uuid4().hex[:6]}"
    node = network.node(node_name=name)
    network.open_gate(f"wrong-{name}")
    first = network.finish_on("validate_node", node, status="inconsistent_data")
    assert network.row(node)["locked_by"] == first
    network.close_gate(f"wrong-{name}")
    network.finish_on("validate_node", node)
    assert network.row(node)["locked_by"] == first
    (reason,) = network.reasons("modify_node", node, {"node_name": "x"})
    assert reason["locked_by"] == str(first)
    network.retry(first)
    network.finished(first)
    assert network.is_free(node)


def test_reconciling_takes_over_what_an_aborted_process_has_left_out_of_sync(network: Network) -> None:
    """B20: without input, on a subscription that is out of sync; afterwards it is in sync, without SQL."""
    node = network.node()
    process_id = network.held_at("rename", "modify_node", node, {"node_name": "half done"})
    network.abort(process_id)
    row = network.row(node)
    assert (row["insync"], row["locked_by"]) == (False, process_id)
    network.finish_on("reconcile_node", node)
    assert network.is_free(node)
    assert network.block(node)["tags"] == ["repaired"]
    assert network.block(node)["renamed"] == 0, "nothing of the aborted step"
    network.let_go(process_id)
    assert network.status(process_id) == "aborted"
