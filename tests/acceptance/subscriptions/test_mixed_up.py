"""Authors who mix up subscriptions harm none but their own process: B19, B29."""

from __future__ import annotations

from uuid import UUID

from tests.acceptance.subscriptions.network import Network


def careless(network: Network, node: UUID, other: UUID, how: str) -> UUID:
    return network.on("careless_change", node, {"other": str(other), "how": how})


def test_another_subscription_under_the_engines_key_is_not_given_another_status(network: Network) -> None:
    node, other = network.node(), network.node()
    process_id = careless(network, node, other, "status")
    said = network.wait_for_failure(process_id)
    assert f"has the subscription {other} under 'subscription', but this process is about {node}" in said
    assert network.row(other)["status"] == "active"
    assert network.row(node)["locked_by"] == process_id
    assert network.abort(process_id).type == "process.aborted"


def test_a_completed_process_holds_no_lock_whatever_its_steps_have_returned_or_made(network: Network) -> None:
    node, other = network.node(), network.node()
    for how in ("swap", "second"):
        process_id = network.finished(careless(network, node, other, how))
        assert network.query("SELECT 1 FROM subscriptions WHERE locked_by = $1", process_id) == []
    made = UUID(network.state(process_id)["second"]["subscription_id"])
    assert (network.row(made)["status"], network.row(made)["insync"]) == ("initial", True)
    assert network.is_free(node)
    assert network.is_free(other)


def test_a_subscription_that_another_process_holds_is_not_saved_until_it_is_released(network: Network) -> None:
    """And a retry goes on when it is; nothing of the refused attempt is stored."""
    node, other = network.node(), network.node()
    holder = network.held_at("tell", "modify_node", other, {"node_name": "held"})
    process_id = careless(network, node, other, "other")
    said = network.wait_for_failure(process_id)
    assert said.startswith("SubscriptionLockedError: ")
    assert f"the process {holder} (modify_node, running) holds it" in said
    assert network.block(other)["renamed"] == 1
    network.let_go(holder)
    network.finished(holder)
    network.retry(process_id)
    network.finished(process_id)
    assert network.block(other)["renamed"] == 2


def test_a_model_must_stand_under_a_key(network: Network) -> None:
    node = network.node()
    process_id = careless(network, node, node, "bare")
    assert "returned Node: return a dict that has it under a key" in network.wait_for_failure(process_id)
    assert network.abort(process_id).type == "process.aborted"


def test_a_later_page_does_not_put_another_subscription_in_the_place_of_the_first_pages(network: Network) -> None:
    node, other = network.node(), network.node()
    body = network.refused_on("careless_change", node, {"other": str(other), "how": "form"})
    assert body["error"] == "DefinitionError"
    assert "ends with another 'subscription_id' than the first page has" in body["detail"]


def test_what_a_finished_process_has_left_locked_is_said_to_be_left(network: Network) -> None:
    """B28: whoever is refused hears that waiting will not help, and what will."""
    node = network.node()
    process_id = network.held_at("tell", "modify_node", node, {"node_name": "left"})
    assert network.abort(process_id).type == "process.aborted"
    body = network.refused_on("modify_node", node, {"node_name": "never"})
    assert body["reasons"] == [{"key": "subscription.not_in_sync", "locked_by": str(process_id)}]
    assert (
        f"process {process_id}, which is aborted, has left it so ('orchestrator subscriptions set-in-sync'"
        in body["detail"]
    )


def test_the_lock_is_of_the_subscription_that_the_rules_were_asked_about(network: Network) -> None:
    """B29: whatever a page of the author's says under the engine's other key."""
    node, other = network.node(), network.node()
    process_id = network.finished(careless(network, node, other, "page"))
    assert list(network.state(process_id)["__old_subscriptions__"]) == [str(node)]
    assert network.state(process_id)["subscription"]["subscription_id"] == str(node)
