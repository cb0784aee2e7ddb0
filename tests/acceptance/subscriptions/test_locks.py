"""The lock of a subscription: one holder at most, whatever is started, aborted or retried."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import UUID

from tests.acceptance.subscriptions.conftest import MakeNetwork
from tests.acceptance.subscriptions.network import Network, pages
from tests.acceptance.waiting import until

PAIRS = 20
LOCKED_OUT = "SubscriptionLockedError"


def assert_never_together(network: Network, workflow_step: str, subjects: dict[UUID, UUID]) -> None:
    """No two processes of one subscription were in their author's step at the same time; each was there once."""
    inside: dict[UUID, UUID] = {}
    seen: dict[UUID, int] = defaultdict(int)
    for line in network.journal():
        process_id = UUID(line["process_id"])
        subject = subjects.get(process_id)
        if subject is None:
            continue
        if line["what"] == workflow_step:
            assert subject not in inside, f"{process_id} entered while {inside[subject]} was inside"
            inside[subject] = process_id
            seen[process_id] += 1
        elif line["what"] == f"{workflow_step} passed":
            assert inside.pop(subject) == process_id
    assert not inside
    assert set(seen.values()) == {1}
    assert set(seen) == set(subjects)


def test_of_two_workflows_started_at_the_same_instant_one_proceeds(networks: MakeNetwork) -> None:
    """B29: twenty pairs, all accepted before anybody could lock; then two consumers run them. The others can be retried."""
    network = networks()
    coordinator, consumer = network.coordinator(), network.consumer()
    for program in (coordinator, consumer):
        program.ready()
    creations = [network.start_node() for _ in range(PAIRS)]
    nodes = [network.subscription_of(network.finished(process_id)) for process_id in creations]
    assert consumer.stop() == 0

    network.open_gate("hold-rename-pair")
    page = {"node_name": "mine", "tag": "pair"}
    with ThreadPoolExecutor(4) as threads:
        twice = [one for node in nodes for one in (node, node)]
        processes = list(threads.map(partial(network.on, "modify_node", page=page), twice))
    subjects = dict(zip(processes, twice, strict=True))
    for program in [network.consumer(), network.consumer()]:
        program.ready()

    def settled() -> bool:
        failed = network.value("SELECT count(*) FROM processes WHERE status = 'failed'")
        inside = network.journal(what="rename")
        return bool(failed == PAIRS and len(inside) == PAIRS)

    until(settled, "of each pair one is in its author's step and one has failed")
    winners = {UUID(line["process_id"]) for line in network.journal(what="rename")}
    losers = set(processes) - winners
    assert {subjects[process_id] for process_id in winners} == {subjects[process_id] for process_id in losers}
    for process_id in winners:
        assert network.row(subjects[process_id])["locked_by"] == process_id
    for process_id in losers:
        assert network.failure(process_id).startswith(LOCKED_OUT)
        assert network.steps(process_id)[-1] == "Lock subscription"
    holder = str(network.row(nodes[0])["locked_by"])
    (loser,) = [one for one in losers if subjects[one] == nodes[0]]
    assert f"the process {holder} (modify_node, running) holds it" in network.failure(loser)

    network.open_gate("go-rename-pair")
    for process_id in winners:
        network.finished(process_id)
    assert all(network.is_free(node) for node in nodes)
    for process_id in losers:
        network.retry(process_id)
    for process_id in losers:
        network.finished(process_id)
    assert all(network.is_free(node) for node in nodes)
    assert [network.block(node)["renamed"] for node in nodes] == [2] * PAIRS
    assert_never_together(network, "rename", subjects)


def test_commands_that_race_with_running_programs_leave_one_holder(network: Network) -> None:
    """B29: ten pairs as they come: the second is refused at the start or fails at the lock, and none is lost."""
    nodes = [
        network.subscription_of(network.finished(process_id))
        for process_id in [network.start_node() for _ in range(10)]
    ]
    network.open_gate("hold-rename-race")

    def ask(node: UUID) -> tuple[UUID, UUID | None]:
        inputs = pages(node, {"node_name": "fast", "tag": "race"})
        answer = network.client.ask("workflow.start", {"workflow": "modify_node", "inputs": inputs, "user": "tester"})
        if answer.type == "workflow.refused":
            assert [one["key"] for one in answer.body["reasons"]] == ["subscription.not_in_sync"]
            return node, None
        return node, UUID(answer.body["process_id"])

    def decided(process_id: UUID) -> bool:
        return network.status(process_id) == "failed" or bool(network.journal(process_id, "rename"))

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, [one for node in nodes for one in (node, node)]))
    running = {process_id: node for node, process_id in answers if process_id is not None}
    for process_id in running:
        until(partial(decided, process_id), f"{process_id} holds the lock or has not got it")
    inside = {UUID(line["process_id"]) for line in network.journal(what="rename") if line["tag"] == "race"}
    assert {running[process_id] for process_id in inside} == set(nodes)
    assert len(inside) == len(nodes)
    network.open_gate("go-rename-race")
    for process_id in inside:
        network.finished(process_id)
    late = set(running) - inside
    for process_id in late:
        assert network.failure(process_id).startswith(LOCKED_OUT)
        network.retry(process_id)
        network.finished(process_id)
    assert all(network.is_free(node) for node in nodes)
    assert_never_together(network, "rename", running)
    assert sum(network.block(node)["renamed"] for node in nodes) == len(running)


def test_a_failed_process_keeps_its_lock_until_it_is_retried_to_the_end(network: Network) -> None:
    """B28, B29: nobody else gets at a half changed subscription; nobody may declare it in sync either."""
    node = network.node()
    network.open_gate("break-tell-keeps")
    process_id = network.finish_on("modify_node", node, {"node_name": "half", "tag": "keeps"}, status="failed")
    assert network.row(node)["locked_by"] == process_id
    refused = network.command("subscriptions", "set-in-sync", str(node), "--reason", "I say so", exit_code=1)
    assert f"held by process {process_id} (modify_node, failed)" in refused.stderr
    assert network.reasons("modify_node", node, {"node_name": "x"})[0]["locked_by"] == str(process_id)
    network.retry(process_id)
    network.wait_for_note(process_id, "tell", 2)
    network.wait_for(process_id, "failed")
    assert network.row(node)["locked_by"] == process_id
    network.close_gate("break-tell-keeps")
    network.retry(process_id)
    network.finished(process_id)
    assert network.is_free(node)
    assert network.block(node)["renamed"] == 1, "finished steps are not run again"


def test_aborting_says_what_it_leaves_locked_and_a_person_sets_it_in_sync(network: Network) -> None:
    """B28: refused while the process is unfinished, possible after the abort, and written into the history."""
    node = network.node()
    process_id = network.held_at("tell", "modify_node", node, {"node_name": "stuck"})
    refused = network.command(
        "subscriptions", "set-in-sync", str(node), "--reason", "in a hurry", "--json", exit_code=1
    )
    assert '"subscription.held_by_process"' in refused.stdout
    network.abort(process_id, reason="does not answer")
    notes = [one.note for one in network.log(process_id) if one.status in {"abort", "aborted"}]
    assert notes
    assert all(f"does not answer; leaves out of sync: {node}" in str(note) for note in notes)
    assert network.row(node)["locked_by"] == process_id
    assert network.reasons("modify_node", node, {"node_name": "x"})[0]["locked_by"] == str(process_id)

    arguments = ("subscriptions", "set-in-sync", str(node), "--user", "noc", "--reason", "looked into it")
    assert network.json(*arguments)["changed"] is True
    assert network.is_free(node)
    (change,) = network.json("subscriptions", "history", str(node))["other_changes"]
    assert (change["author"], change["note"]) == ("noc", "looked into it")
    assert change["changes"] == {"insync": [False, True]}
    network.finish_on("modify_node", node, {"node_name": "unstuck"})
    network.let_go(process_id)
    assert network.status(process_id) == "aborted"


def test_a_process_unlocks_its_own_subscription_whatever_else_its_state_refers_to(network: Network) -> None:
    """B17, B18: steps that look up other subscriptions leave references to them in the state."""
    node = network.node()
    line = network.line(node)
    assert network.is_free(line)
    process_id = network.finish_on("modify_line", line, {"vlan": 9})
    assert network.state(process_id)["node"]["subscription_id"] == str(node)
    assert network.is_free(line)
    network.finish_on("terminate_line", line, {})
    assert network.is_free(line)


def test_a_repeated_command_gives_the_same_process_although_it_holds_the_subscription_by_now(network: Network) -> None:
    """B29, B39: it is looked at before the rules are; with other pages under the same key it is refused."""
    node = network.node()
    network.open_gate("hold-rename-again")
    inputs, key = pages(node, {"node_name": "once", "tag": "again"}), f"key-{node}"
    process_id = network.start("modify_node", *inputs, key=key)
    network.wait_for_note(process_id, "rename")
    body = {"workflow": "modify_node", "inputs": inputs}
    answer = network.client.ask("workflow.start", body, message_id=key)
    assert (answer.type, answer.body) == ("workflow.started", {"process_id": str(process_id), "created": False})
    other = body | {"inputs": pages(node, {"node_name": "twice", "tag": "again"})}
    assert network.client.ask("workflow.start", other, message_id=key).body["error"] == "ConflictError"
    network.let_go(process_id)
    network.finished(process_id)
    assert network.client.ask("workflow.start", body, message_id=key).body["created"] is False
    assert network.block(node)["renamed"] == 1
