"""The locking step in bad company: somebody is faster, or its consumer is killed; and a kill in the middle of saving."""

from __future__ import annotations

from uuid import UUID

from tests.acceptance.client import COMMANDS
from tests.acceptance.subscriptions.conftest import MakeNetwork
from tests.acceptance.subscriptions.network import Network, pages
from tests.acceptance.waiting import until

ROW = "SELECT 1 FROM subscriptions WHERE subscription_id = $1 FOR NO KEY UPDATE"


def assert_done_once(network: Network, process_id: UUID, node: UUID) -> None:
    """The process has completed, each of its steps is stored once, nothing is locked."""
    network.finished(process_id)
    stored = [one.name for one in network.log(process_id, kind="step") if one.status in {"success", "complete"}]
    assert len(stored) == len(set(stored)) == 8
    assert network.is_free(node)
    assert network.block(node)["renamed"] == 1
    touched = "SELECT count(*) FROM subscription_changes WHERE process_id = $1"
    assert network.value(touched, process_id) == 1
    links = "SELECT count(*) FROM processes_subscriptions WHERE process_id = $1"
    assert network.value(links, process_id) == 1


def test_a_consumer_killed_inside_the_locking_step_leaves_no_lock(networks: MakeNetwork) -> None:
    """B8, B29: its transaction is gone; another consumer takes the lock and goes on by itself."""
    network = networks()
    network.coordinator().ready()
    consumer = network.consumer().ready()
    node = network.node()
    assert consumer.stop() == 0
    process_id = network.on("modify_node", node, {"node_name": "survivor"})
    with network.holding(ROW, node) as holder:
        doomed = network.consumer().ready()
        until(lambda: network.waits_for(holder), "the locking step waits for the row")
        doomed.kill()
    assert network.steps(process_id)[-1] == "Link process to subscription"
    until(lambda: network.row(node)["insync"], "the dead consumer's transaction is gone")
    network.consumer().ready()
    assert_done_once(network, process_id, node)
    locked = network.log(process_id, "Lock subscription")
    assert [one.status for one in locked] == ["success"]


def test_the_backup_is_of_the_moment_of_the_lock(networks: MakeNetwork) -> None:
    """B18: what somebody else commits while the locking step waits for the row is in the backup."""
    network = networks()
    network.coordinator().ready()
    consumer = network.consumer().ready()
    node = network.node(node_name="before")
    assert consumer.stop() == 0
    process_id = network.on("modify_node", node, {"node_name": "after"})
    change = "UPDATE subscriptions SET description = 'just now' WHERE subscription_id = $1 RETURNING 1"
    with network.holding(change, node) as holder:
        network.consumer().ready()
        until(lambda: network.waits_for(holder), "the locking step waits for the row")
    network.finished(process_id)
    backup = network.state(process_id)["__old_subscriptions__"][str(node)]
    assert backup["description"] == "just now"
    (block,) = backup["blocks"]
    assert block["resources"]["node_name"] == "before"


def test_a_process_that_is_aborted_while_it_waits_for_the_lock_never_gets_it(networks: MakeNetwork) -> None:
    """B8, B29: the abort is first, so the locking step stores nothing, and there is nothing to tell of."""
    network = networks()
    network.coordinator().ready()
    consumer = network.consumer().ready()
    node = network.node()
    assert consumer.stop() == 0
    process_id = network.on("modify_node", node, {"node_name": "never"})
    with network.holding(ROW, node) as holder:
        network.consumer().ready()
        until(lambda: network.waits_for(holder), "the locking step waits for the row")
        assert network.abort(process_id, reason="too slow").type == "process.aborted"
    assert network.log(process_id)[-1].note == "too slow"
    network.finish_on("modify_node", node, {"node_name": "somebody else"})
    assert network.is_free(node)
    assert network.status(process_id) == "aborted"
    assert network.log(process_id, "Rename") == []


def test_a_workflow_does_not_begin_on_a_subscription_that_was_ended_after_it_was_accepted(
    networks: MakeNetwork,
) -> None:
    """B24, B29: it has waited for a consumer; a retry after it could not get the lock is the same."""
    network = networks()
    network.coordinator().ready()
    consumer = network.consumer().ready()
    node = network.node(node_name="as it was")
    assert consumer.stop() == 0
    process_id = network.on("modify_node", node, {"node_name": "too late"})
    network.consumer("--queue", "tasks").ready()
    network.finish("task_end_all", {"all": [str(node)]})
    network.consumer("--queue", "default").ready()
    until(lambda: network.status(process_id) in {"completed", "failed"}, "the process comes to an end")
    assert network.block(node)["node_name"] == "as it was"
    assert network.status(process_id) == "failed"
    assert network.row(node)["insync"]


def test_a_workflow_does_not_begin_on_another_version_than_its_caller_has_looked_at(networks: MakeNetwork) -> None:
    """B18: somebody has changed the subscription between the start and the lock; both versions are named."""
    network = networks()
    network.coordinator().ready()
    consumer = network.consumer().ready()
    nodes = [network.node(), network.node()]
    seen = network.row(nodes[0])["version"]
    assert consumer.stop() == 0
    network.consumer("--queue", "tasks").ready()
    late = network.start("modify_node", {"subscription_id": str(nodes[0]), "version": seen}, {"node_name": "late"})
    one, other = map(str, nodes)
    network.finish("task_change_both", {"node": one, "either": other, "many": [one, other], "tag": "newer"})
    network.consumer("--queue", "default").ready()
    said = network.wait_for_failure(late)
    assert said.startswith("StaleVersionError: ")
    assert f"you have looked at version {seen}, it is at version {seen + 1} now" in said
    assert network.is_free(nodes[0])


def test_starts_on_a_subscription_that_a_step_writes_to_hold_up_nobody_else(networks: MakeNetwork) -> None:
    """B31: a step has saved a subscription and takes its time; workflows on others start meanwhile."""
    network = networks(ORCHESTRATOR_DATABASE_POOL_SIZE="2")
    network.coordinator().ready()
    network.consumer("--queue", "default", "--queue", "tasks", ORCHESTRATOR_DATABASE_POOL_SIZE="10").ready()
    nodes = [network.node(), network.node()]
    network.open_gate("hold-both-slow")
    one, other = map(str, nodes)
    writer = network.start("task_change_both", {"node": one, "either": other, "many": [one, other], "tag": "slow"})
    network.wait_for_note(writer, "both")
    for _ in range(3):
        body = {"workflow": "validate_node", "inputs": pages(nodes[0])}
        network.client.send(COMMANDS, "workflow.start", body)
    try:
        answer = network.client.ask("workflow.start", {"workflow": "task_tell_all", "inputs": [{"all": []}]})
        assert answer.type == "workflow.started", answer.body
    finally:
        network.open_gate("go-both-slow")


def test_a_step_whose_models_cannot_be_saved_in_time_fails_and_gives_back_its_place(networks: MakeNetwork) -> None:
    """B33: its timeout covers the saving of what it has returned, whoever has locked the row and for how long."""
    network = networks(ORCHESTRATOR_STEP_TIMEOUT="4")
    network.coordinator().ready()
    network.consumer("--concurrency", "1").ready()
    line = network.line(network.node(), network.node())
    process_id = network.held_at("vlan", "modify_line", line, {"vlan": 7})
    with network.holding(ROW, line) as holder:
        network.let_go(process_id)
        until(lambda: network.waits_for(holder), "the step's models wait for the row")
        said = network.wait_for_failure(process_id)
        other = network.node()
    assert said.startswith("StepTimeoutError: the step 'Change the VLAN' was cancelled while its models were saved")
    assert network.row(other)["insync"]
    network.retry(process_id)
    network.finished(process_id)
    assert network.is_free(line)


def test_a_consumer_killed_right_after_the_locking_step_leaves_the_lock_to_its_process(networks: MakeNetwork) -> None:
    """B8, B29: at the instant at which the lock can be seen from outside; the process goes on and releases it."""
    network = networks()
    network.coordinator().ready()
    doomed = network.consumer().ready()
    node = network.node()
    process_id = network.on("modify_node", node, {"node_name": "survivor"})
    until(lambda: network.row(node)["locked_by"] == process_id, "the process has the lock", every=0.001)
    doomed.kill()
    assert network.row(node)["locked_by"] in {process_id, None}
    network.consumer().ready()
    assert_done_once(network, process_id, node)


def test_a_consumer_killed_while_it_saves_stores_all_of_it_or_nothing(networks: MakeNetwork) -> None:
    """B8, B32: two models of one step, one of them sent to the database already when the consumer dies."""
    network = networks()
    network.coordinator().ready()
    doomed = network.consumer("--queue", "default", "--queue", "tasks").ready()
    nodes = [network.node(), network.node()]
    network.open_gate("hold-both-crash")
    one, other = map(str, nodes)
    page = {"node": one, "either": other, "many": [one, other], "tag": "crash"}
    process_id = network.start("task_change_both", page)
    network.wait_for_note(process_id, "both")
    doomed.kill()
    assert [network.block(node)["tags"] for node in nodes] == [[], []]
    network.open_gate("go-both-crash")
    network.consumer("--queue", "default", "--queue", "tasks").ready()
    network.finished(process_id)
    assert [network.block(node)["tags"] for node in nodes] == [["crash"], ["crash"]]
    changes = network.query(
        "SELECT subscription_id, changes FROM subscription_changes WHERE process_id = $1", process_id
    )
    assert {row["subscription_id"] for row in changes} == set(nodes)
    assert len(changes) == 2
