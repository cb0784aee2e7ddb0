"""The life of a subscription: made, changed, moved to another product, ended."""

from __future__ import annotations

import json
from uuid import UUID

from tests.acceptance.subscriptions.network import Network, pages
from tests.acceptance.waiting import until


def test_a_create_workflow_asks_for_a_product_and_ends_with_a_free_active_subscription(network: Network) -> None:
    """B17: the state knows the product, the steps stand around the author's, the start date is set."""
    process_id = network.start_node(node_name="ams-1")
    network.wait_for(process_id, "completed")
    state, subscription_id = network.state(process_id), network.subscription_of(process_id)
    assert (state["product"], state["product_name"]) == (network.product("Node P"), "Node P")
    assert network.steps(process_id) == [
        "Start",
        "Make the node",
        "Give it a number",
        "Set subscription to 'active'",
        "Unlock subscription",
        "Done",
    ]
    row = network.row(subscription_id)
    assert (row["status"], row["insync"], row["locked_by"]) == ("active", True, None)
    assert row["start_date"] is not None
    assert row["end_date"] is None
    assert network.block(subscription_id) == {"node_name": "ams-1", "ims_id": 7, "renamed": 0, "tags": []}


def test_the_product_page_offers_the_linked_products_only_and_the_next_page_knows_the_chosen_one(
    network: Network,
) -> None:
    """B17, B39: an unfinished form is refused with the next page's schema; another workflow's product is refused."""
    first = network.refused("create_node")
    assert first["error"] == "FormIncompleteError"
    assert first["form"]["required"] == ["product"]
    (choice,) = [one for one in first["form"]["$defs"].values() if "enum" in one]
    assert sorted(choice["enum"]) == sorted(network.product(name) for name in ("Node P", "Node core"))

    second = network.refused("create_node", {"product": network.product("Node core")})
    assert second["error"] == "FormIncompleteError"
    assert second["form"]["title"] == "A new Node core"
    assert "node_name" in second["form"]["properties"]

    wrong = network.refused("create_node", {"product": network.product("Node PE")}, {"node_name": "ams-1"})
    assert wrong["error"] == "InvalidInputError"
    assert [reason["loc"] for reason in wrong["reasons"]] == [["product"]]


def test_a_create_workflow_may_end_in_another_status(network: Network) -> None:
    """B17: in provisioning there is no start date; becoming active sets it."""
    subscription_id = network.enrolled()
    row = network.row(subscription_id)
    assert (row["status"], row["insync"], row["start_date"]) == ("provisioning", True, None)
    network.finish_on("provision_node_enrollment", subscription_id, {})
    row = network.row(subscription_id)
    assert (row["status"], row["insync"]) == ("active", True)
    assert row["start_date"] is not None


def test_a_create_that_fails_in_its_first_step_leaves_no_subscription(network: Network) -> None:
    """B5, B17: the step has saved the model in its session before it raised; nothing of it is there until the retry."""
    network.open_gate("break-make-gone")
    process_id = network.start_node(node_name="gone-1", tag="gone")
    assert network.wait_for_failure(process_id) == "RuntimeError: make of gone is broken"
    named = "SELECT count(*) FROM subscriptions WHERE description = 'node gone-1'"
    touched = "SELECT count(*) FROM processes_subscriptions WHERE process_id = $1"
    assert network.value(named) == network.value(touched, process_id) == 0
    network.close_gate("break-make-gone")
    network.retry(process_id)
    network.wait_for(process_id, "completed")
    assert network.value(named) == network.value(touched, process_id) == 1


def test_a_create_that_fails_later_keeps_its_subscription_to_itself_until_the_retry(network: Network) -> None:
    """B17, B28: initial, out of sync, held by the process; other workflows are refused by it."""
    network.open_gate("break-number-later")
    process_id = network.start_node(tag="later")
    network.wait_for(process_id, "failed")
    subscription_id = network.subscription_of(process_id)
    row = network.row(subscription_id)
    assert (row["status"], row["insync"], row["locked_by"]) == ("initial", False, process_id)
    found = {reason["key"]: reason for reason in network.reasons("modify_node", subscription_id)}
    assert found["subscription.not_in_sync"]["locked_by"] == str(process_id)
    assert found["subscription.no_modify_invalid_status"]["status"] == "initial"
    network.close_gate("break-number-later")
    network.retry(process_id)
    network.wait_for(process_id, "completed")
    assert network.row(subscription_id)["status"] == "active"
    assert network.is_free(subscription_id)


def test_a_modify_workflow_links_locks_and_unlocks_around_the_authors_steps(network: Network) -> None:
    """B18: with a backup of the subscription in the state, as it was when it was locked."""
    subscription_id = network.node(node_name="ams-2")
    before = network.row(subscription_id)
    process_id = network.held_at("tell", "modify_node", subscription_id, {"node_name": "ams-3"})
    during = network.row(subscription_id)
    assert (during["insync"], during["locked_by"]) == (False, process_id)
    network.let_go(process_id)
    network.wait_for(process_id, "completed")
    assert network.steps(process_id) == [
        "Start",
        "Link process to subscription",
        "Lock subscription",
        "Rename",
        "Tell the network",
        "Look at it",
        "Unlock subscription",
        "Done",
    ]
    backup = network.state(process_id)["__old_subscriptions__"][str(subscription_id)]
    assert (backup["status"], backup["version"], backup["description"]) == ("active", before["version"], "node ams-2")
    (block,) = backup["blocks"]
    assert (block["field"], block["resources"]["node_name"]) == ("node", "ams-2")
    assert network.block(subscription_id)["node_name"] == "ams-3"
    assert network.is_free(subscription_id)
    assert network.row(subscription_id)["version"] == before["version"] + 1, "locking is no change of what it is"
    linked = network.query("SELECT subscription_id FROM processes_subscriptions WHERE process_id = $1", process_id)
    assert [one["subscription_id"] for one in linked] == [subscription_id]


def test_a_stale_version_is_refused_and_both_are_named(network: Network) -> None:
    """B18: by the first page already; the present version is accepted."""
    subscription_id = network.node()
    seen = network.row(subscription_id)["version"]
    network.finish_on("modify_description", subscription_id, {"description": "newer"})
    first = {"subscription_id": str(subscription_id), "version": seen}
    for inputs in ([first], [first, {"node_name": "late"}]):
        body = network.refused("modify_node", *inputs)
        assert body["error"] == "StaleVersionError"
        assert body["reasons"] == [{"key": "subscription.stale_version", "seen": seen, "version": seen + 1}]
        assert f"you have looked at version {seen}, it is at version {seen + 1}" in body["detail"]
    network.finish("modify_node", first | {"version": seen + 1}, {"node_name": "in-time"})
    assert network.block(subscription_id)["node_name"] == "in-time"


def test_the_form_of_a_modify_workflow_knows_the_subscription(network: Network) -> None:
    """B18, B32: the author's form asks for the model by its type; a subscription that is not there is named."""
    subscription_id = network.node(node_name="ams-4")
    form = network.refused_on("modify_node", subscription_id)["form"]
    assert form["properties"]["node_name"]["default"] == "ams-4"
    missing = UUID(int=7)
    body = network.refused_on("modify_node", missing, {})
    assert body["error"] == "NotFoundError"
    assert str(missing) in body["detail"]
    assert network.refused("modify_node", {"subscription_id": "nonsense"})["error"] == "InvalidInputError"


def test_a_modify_workflow_may_move_a_subscription_to_another_product(network: Network) -> None:
    """B18: its blocks stay with all that is in them; the former product's workflows no longer run on it."""
    subscription_id = network.node(node_name="ams-5")
    process_id = network.finish_on("move_node", subscription_id, {"new_product": network.product("Node core")})
    assert str(network.row(subscription_id)["product_id"]) == network.product("Node core")
    assert network.block(subscription_id)["node_name"] == "ams-5"
    assert network.is_free(subscription_id)
    assert network.state(process_id)["subscription"]["product"] == "Node core"

    body = network.refused_on("provision_node_enrollment", subscription_id, {})
    assert {"key": "subscription.workflow_not_of_product", "product": "Node core"} in body["reasons"]
    process_id = network.on("move_node", subscription_id, {"new_product": network.product("Line 1G")})
    assert "ModelError" in network.wait_for_failure(process_id)
    assert network.row(subscription_id)["locked_by"] == process_id
    assert network.abort(process_id).type == "process.aborted"


def test_a_terminate_workflow_ends_a_subscription_and_its_history_stays(network: Network) -> None:
    """B19: terminated, with an end date, free; every change is still there, and nothing but a look may follow."""
    subscription_id = network.node()
    process_id = network.finish_on("terminate_node", subscription_id, {})
    row = network.row(subscription_id)
    assert row["status"] == "terminated"
    assert row["end_date"] is not None
    assert row["start_date"] <= row["end_date"]
    assert network.is_free(subscription_id)
    assert network.steps(process_id)[-3:] == ["Set subscription to 'terminated'", "Unlock subscription", "Done"]
    changes = network.query(
        "SELECT changes -> 'status' AS status FROM subscription_changes WHERE subscription_id = $1 ORDER BY change_id",
        subscription_id,
    )
    assert [one["status"] for one in changes if one["status"]] == [
        [None, "initial"],
        ["initial", "active"],
        ["active", "terminated"],
    ]
    (reason,) = network.reasons("modify_node", subscription_id)
    assert reason == {
        "key": "subscription.no_modify_invalid_status",
        "status": "terminated",
        "usable_when": ["active"],
        "action": "modified",
    }


def test_modify_note_ships_and_is_had_by_every_product(network: Network) -> None:
    """B22, B31: nobody has linked it in a migration of the project. Started with a message and on the command line."""
    for subscription_id in (network.node(), network.enrolled()):
        if network.row(subscription_id)["status"] != "active":
            network.finish_on("provision_node_enrollment", subscription_id, {})
        network.finish_on("modify_note", subscription_id, {"note": "handle with care"})
        assert network.row(subscription_id)["note"] == "handle with care"
        form = network.refused_on("modify_note", subscription_id)["form"]
        assert form["properties"]["note"]["default"] == "handle with care"
        inputs = [word for page in pages(subscription_id, {"note": ""}) for word in ("--input", json.dumps(page))]
        network.command("start", "modify_note", *inputs, "--wait", "--user", "noc")
        assert network.row(subscription_id)["note"] is None


def test_events_name_the_subscriptions_that_they_are_about(network: Network) -> None:
    """B1, B39: every event from the first reference in the state on; a task that touches none names none."""
    made = network.start_node()
    network.wait_for(made, "completed")
    subscription_id = str(network.subscription_of(made))
    changed = network.finish_on("modify_note", UUID(subscription_id), {"note": "x"})

    def ended(process_id: UUID) -> bool:
        return any(one.key.endswith(".completed") for one in network.client.events_of(process_id))

    until(lambda: ended(made) and ended(changed), "both have told that they are done")
    assert {tuple(one.body["subscription_ids"]) for one in network.client.events_of(changed)} == {(subscription_id,)}
    told = {one.key: one.body["subscription_ids"] for one in network.client.events_of(made)}
    assert told["process.create_node.completed"] == [subscription_id]
    named = [tuple(one.body["subscription_ids"]) for one in network.client.events_of(made)]
    assert set(named) == {(), (subscription_id,)}
    assert named == sorted(named), "once named, always named"


def test_workflows_of_a_product_and_tasks_are_two_kinds(network: Network) -> None:
    """B12: a task has no product, needs no subscription, and runs on the queue of its own; all names are told apart."""
    process_id = network.finish("task_tell_all", {"all": []})
    kinds = network.query("SELECT is_task, workflow FROM processes WHERE process_id = $1", process_id)
    assert kinds[0]["is_task"] is True
    known = {one["name"]: one for one in network.json("workflows")}
    assert (known["task_tell_all"]["target"], known["task_tell_all"]["is_task"]) == ("SYSTEM", True)
    assert (known["validate_node"]["target"], known["validate_node"]["is_task"]) == ("VALIDATE", True)
    assert (known["create_node"]["target"], known["create_node"]["is_task"]) == ("CREATE", False)
    linked = "SELECT count(*) FROM products_workflows JOIN workflows USING (workflow_id) WHERE name LIKE 'task%'"
    assert network.value(linked) == 0
    node = network.node()
    assert pages(node) == [{"subscription_id": str(node)}]
    validation = network.finish_on("validate_node", node)
    assert network.value("SELECT is_task FROM processes WHERE process_id = $1", validation) is True
