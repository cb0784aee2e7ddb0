"""Domain models in steps: loaded fresh for each, asked for by annotation, saved in the commit of the step."""

from __future__ import annotations

from functools import partial
from uuid import UUID, uuid4

import pytest

from tests.acceptance.subscriptions.network import Network
from tests.acceptance.waiting import until

REFERENCE = {"subscription_id", "product", "description", "status", "version"}


def test_models_are_loaded_anew_for_each_step_and_the_state_holds_references(network: Network) -> None:
    """B10: somebody else changes the subscription between two steps; the second sees it, and the state has no model in it."""
    node = network.node()
    process_id = network.held_at("tell", "modify_node", node, {"node_name": "fresh"})
    state = network.state(process_id)
    assert set(state["subscription"]) == REFERENCE
    assert state["subscription"]["subscription_id"] == str(node)
    network.finish_on("modify_description", node, {"description": "written in between"})
    version = network.row(node)["version"]
    network.let_go(process_id)
    network.finished(process_id)
    (looked,) = network.journal(process_id, "looked")
    assert (looked["description"], looked["version"]) == ("written in between", version)
    assert network.state(process_id)["seen"] == "the node fresh with number 7"
    assert network.row(node)["description"] == "written in between"


def test_a_change_between_load_and_save_is_noticed_and_a_retry_has_the_new_values(network: Network) -> None:
    """B10, B32: by the version; the failed step stores nothing, and nothing of the other's is overwritten."""
    node = network.node(node_name="old name")
    process_id = network.held_at("rename", "modify_node", node, {"node_name": "new name"})
    version = network.row(node)["version"]
    network.finish_on("reconcile_node", node)
    network.let_go(process_id)
    failure = network.wait_for_failure(process_id)
    assert failure.startswith("ConcurrentChangeError")
    assert f"version {version} then, {version + 1} now" in failure
    assert network.block(node) == {"node_name": "old name", "ims_id": 7, "renamed": 0, "tags": ["repaired"]}
    assert network.row(node)["version"] == version + 1
    assert network.row(node)["locked_by"] == process_id
    network.retry(process_id)
    network.finished(process_id)
    assert network.block(node) == {"node_name": "new name", "ims_id": 7, "renamed": 1, "tags": ["repaired"]}
    assert network.row(node)["version"] == version + 2


def test_a_description_that_is_changed_beside_the_holder_does_not_make_its_save_fail(network: Network) -> None:
    """B28: both changes stay."""
    node = network.node(node_name="old name")
    process_id = network.held_at("rename", "modify_node", node, {"node_name": "new name"})
    version = network.row(node)["version"]
    network.finish_on("modify_description", node, {"description": "theirs"})
    network.let_go(process_id)
    network.finished(process_id)
    assert network.block(node)["node_name"] == "new name"
    assert (network.row(node)["description"], network.row(node)["version"]) == ("theirs", version + 2)


@pytest.mark.parametrize("tag", ["forgotten", "dumped", "not awaited"])
def test_a_step_that_changes_a_model_and_does_not_save_it_fails(network: Network, tag: str) -> None:
    """B32: it must not seem to have done what nothing has stored."""
    node = network.node()
    before = network.row(node)
    process_id = network.on("modify_description", node, {"description": "lost", "tag": tag})
    failure = network.wait_for_failure(process_id)
    assert failure.startswith("InvalidResultError")
    assert (
        f"changed the subscription {node}, its argument 'subscription', and did not save it: return the model"
        in failure
    )
    assert network.row(node)["description"] == before["description"]


def test_a_step_may_save_a_model_itself(network: Network) -> None:
    """B32: with the session, in the commit of the step."""
    node = network.node()
    network.finish_on("modify_description", node, {"description": "kept", "tag": "saved"})
    assert network.row(node)["description"] == "kept"


def models_page(node: UUID, either: UUID, *many: UUID, tag: str = "-") -> dict[str, object]:
    """The form of the tasks that ask for models."""
    return {"node": str(node), "either": str(either), "many": [str(one) for one in many], "tag": tag}


def test_steps_get_models_as_their_annotations_say(network: Network) -> None:
    """B32: single, union, list, optional with and without default, a block.

    Each is of the exact class for its lifecycle, which singledispatch goes by; what is returned becomes references.
    """
    node, planned = network.node(node_name="one"), network.enrolled(node_name="two")
    line = network.line(node, planned)
    page = models_page(node, planned, node, planned, line) | {"maybe": str(node)}
    process_id = network.finish("task_look_at_models", page)
    state = network.state(process_id)
    assert state["classes"] == ["Node", "NodeProvisioning", "Node", "NodeProvisioning", "Line"]
    assert state["descriptions"] == [
        "the node one with number 7",
        "a node called two",
        "the node one with number 7",
        "a node called two",
        "a line of 1000 Mbit/s with 2 ports",
    ]
    assert (state["maybe_class"], state["nothing_class"], state["spare_class"]) == ("Node", "NoneType", "NoneType")
    assert set(state["block"]) == {"subscription_instance_id", "owner_subscription_id", "name"}
    assert [set(one) for one in state["all"]] == [REFERENCE] * 3
    assert (state["block_name"], state["block_is_nodes"]) == ("one", True)


def test_a_subscription_in_another_lifecycle_than_a_step_asks_for_fails_the_step(network: Network) -> None:
    """B32: with what it is and what was asked for; what is not there, and what is no id, is named as well."""
    node, planned = network.node(), network.enrolled()
    process_id = network.finish("task_look_at_models", models_page(planned, node), status="failed")
    failure = network.failure(process_id)
    assert failure.startswith("ModelError")
    assert "is NodeProvisioning, because it is provisioning; Node was asked for" in failure
    missing = uuid4()
    process_id = network.finish("task_look_at_models", models_page(node, missing), status="failed")
    assert f"there is no subscription {missing}" in network.failure(process_id)
    network.command("patch", str(process_id), "--set", 'either="nonsense"', "--reason", "to see what is said")
    network.retry(process_id)
    until(lambda: "MissingArgumentError" in network.failure(process_id), "the retry has failed for another reason")
    assert "the state holds 'nonsense': neither an id nor an object with 'subscription_id'" in network.failure(
        process_id
    )


def test_all_models_of_a_step_are_saved_in_its_commit_and_none_when_it_fails(network: Network) -> None:
    """B5, B32: one was saved in the step's session before the step raised; and all were when its result was refused."""
    nodes = [network.node(), network.node()]

    def refused_with(words: str) -> bool:
        return words in network.failure(process_id)

    network.open_gate("break-both-pair")
    process_id = network.finish("task_change_both", models_page(*nodes, *nodes, tag="pair"), status="failed")
    assert [network.block(node)["tags"] for node in nodes] == [[], []]
    audited = "SELECT count(*) FROM subscription_changes WHERE process_id = $1"
    assert network.value(audited, process_id) == 0
    network.close_gate("break-both-pair")
    for gate, words in (
        ("junk", "InvalidResultError: the step 'Change both' returned something that cannot be stored as JSON"),
        ("itself", "InvalidResultError: the step returned something that cannot be stored as JSON: it contains itself"),
        ("blocks", f"return its subscription {nodes[1]} as well"),
    ):
        network.open_gate(f"{gate}-pair")
        network.retry(process_id)
        until(partial(refused_with, words), f"the result is refused with {words}")
        assert [network.block(node)["tags"] for node in nodes] == [[], []]
        assert network.value(audited, process_id) == 0
        network.close_gate(f"{gate}-pair")
    network.retry(process_id)
    network.finished(process_id)
    assert [network.block(node)["tags"] for node in nodes] == [["pair"], ["pair"]]
    assert network.value(audited, process_id) == 2
    state = network.state(process_id)
    assert [one["subscription_id"] for one in state["many"]] == [str(node) for node in nodes]
    assert state["done"]["inside"][0]["owner_subscription_id"] == str(nodes[0])
    linked = network.query("SELECT subscription_id FROM processes_subscriptions WHERE process_id = $1", process_id)
    assert {one["subscription_id"] for one in linked} == set(nodes)
