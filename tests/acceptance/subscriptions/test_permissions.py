"""Who may start, fill in and retry: asked on every door, at every step, through conditions and groups."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

from tests.acceptance.client import Received
from tests.acceptance.subscriptions.network import Network, pages


def refused(answer: Received) -> str:
    """The words of a refusal for lack of permission."""
    assert answer.type == "workflow.refused", answer.body
    body: dict[str, Any] = answer.body
    assert (body["error"], body["reasons"]) == ("ForbiddenError", [{"key": "forbidden"}])
    return str(body["detail"])


def resume(network: Network, process_id: UUID, user: str, *inputs: dict[str, Any]) -> Received:
    """Try to fill in or retry with a message."""
    return network.resume(process_id, *inputs, user=user)


def on_the_command_line(network: Network, *arguments: str, user: str) -> str:
    """Try it on the command line; the words of the refusal."""
    outcome = network.command(*arguments, "--user", user, "--json", exit_code=1)
    assert json.loads(outcome.stdout)["error"] == "ForbiddenError"
    return outcome.stderr


def test_who_may_start_fill_in_and_retry_is_asked_on_every_entry_point(network: Network) -> None:
    """B38: callbacks of the workflow, of an input step in conditions and a group, and of a step in the group.

    A step that has none is the workflow's.
    """
    node, tag = network.node(node_name="ams-9"), uuid4().hex[:8]
    inputs = pages(node, {"tag": tag})
    body = network.refused("guarded_change", *inputs, user="tester")
    assert (body["error"], body["reasons"]) == ("ForbiddenError", [{"key": "forbidden"}])
    assert body["detail"] == "'tester' may not start the workflow 'guarded_change'"
    said = on_the_command_line(network, "start", "guarded_change", "--input", json.dumps(inputs[0]), user="tester")
    assert "'tester' may not start the workflow 'guarded_change'" in said

    process_id = network.start("guarded_change", *inputs, user="noc")
    network.wait_for(process_id, "suspended")
    assert network.json("show", str(process_id))["assignee"] == "BOSS"
    form = resume(network, process_id, "boss").body["form"]
    assert form["title"] == "May ams-9 be changed?"
    for user in ("noc", "tester", "mechanic"):
        assert "may not resume the step 'Approve'" in refused(resume(network, process_id, user, {"approved": True}))
    page = ("resume", str(process_id), "--input", '{"approved": true}')
    assert "'noc' may not resume" in on_the_command_line(network, *page, user="noc")
    assert network.status(process_id) == "suspended"
    assert network.state(process_id).get("approved") is None
    network.open_gate(f"break-mend-{tag}")
    network.open_gate(f"break-finish-{tag}")
    assert resume(network, process_id, "boss", {"approved": True}).type == "process.resumed"
    network.wait_for(process_id, "failed")

    for user in ("noc", "boss"):
        assert "may not retry the step 'Mend'" in refused(resume(network, process_id, user))
    assert "may not retry the step 'Mend'" in on_the_command_line(network, "retry", str(process_id), user="boss")
    skip = ("skip", str(process_id), "--reason", "no need")
    assert "may not skip the step 'Mend'" in on_the_command_line(network, *skip, user="boss")
    patch = ("patch", str(process_id), "--set", "tag=1", "--reason", "no need")
    assert "may not patch the step 'Mend'" in on_the_command_line(network, *patch, user="noc")
    assert len(network.journal(process_id, "mend")) == 1
    network.close_gate(f"break-mend-{tag}")
    network.command("retry", str(process_id), "--user", "mechanic")
    network.wait_for_note(process_id, "finish")
    network.wait_for(process_id, "failed")

    assert "'mechanic' may not retry the step 'Ask once more'" in refused(resume(network, process_id, "mechanic"))
    assert network.status(process_id) == "failed"
    network.close_gate(f"break-finish-{tag}")
    network.retry(process_id, user="noc")
    network.finished(process_id)
    authors = {one.name: one.author for one in network.log(process_id, kind="step") if one.status == "success"}
    assert (authors["Approve"], authors["Mend"], authors["Ask once more"]) == ("boss", "mechanic", "noc")


def test_anybody_may_abort_and_nothing_of_a_refused_attempt_is_logged(network: Network) -> None:
    """B38: refusals leave no row; what is abandoned can always be ended."""
    node = network.node()
    process_id = network.start("guarded_change", *pages(node, {}), user="boss")
    network.wait_for(process_id, "suspended")
    before = len(network.log(process_id))
    refused(resume(network, process_id, "noc", {"approved": True}))
    assert len(network.log(process_id)) == before
    assert network.abort(process_id, user="passer-by").type == "process.aborted"
    assert network.log(process_id)[-1].author == "passer-by"


def test_a_run_predicate_may_refuse_a_start_with_its_own_words(network: Network) -> None:
    """B38: whoever asks, on every door, before any row exists; and it is asked anew each time."""
    node = network.node()
    first = {"subscription_id": str(node)}
    body = network.refused("seasonal_change", first, user="gardener")
    assert (body["error"], body["reasons"]) == ("PredicateFailedError", [{"key": "workflow.predicate_failed"}])
    assert body["detail"] == "the workflow 'seasonal_change' may not run now: not before spring, gardener"
    outcome = network.command("start", "seasonal_change", "--input", json.dumps(first), "--user", "noc", exit_code=1)
    assert "not before spring, noc" in outcome.stderr
    network.open_gate("season")
    process_id = network.finish_on("seasonal_change", node, {})
    assert [one["what"] for one in network.journal(process_id)] == ["pruned"]
    network.close_gate("season")
    assert network.refused("seasonal_change", first, {})["error"] == "PredicateFailedError"


def test_a_run_predicate_that_raises_refuses_the_start_and_says_so(network: Network) -> None:
    """B38: what cannot be decided is not allowed, and who has asked hears why."""
    node = network.node()
    network.open_gate("no-calendar")
    body = network.refused("seasonal_change", {"subscription_id": str(node)})
    network.close_gate("no-calendar")
    assert body["error"] == "PredicateFailedError"
    assert "its run predicate raised LookupError: the calendar is gone" in body["detail"]


def test_a_form_that_raises_is_reported_to_whoever_fills_it_in(network: Network) -> None:
    """B31: on every door; the door is open for others afterwards, and nobody waits for an answer that never comes."""
    node = network.node()
    network.open_gate("season")
    network.open_gate("no-garden")
    first = {"subscription_id": str(node)}
    body = network.refused("seasonal_change", first, {})
    assert body["error"] == "DefinitionError"
    assert body["detail"] == "the form of 'seasonal_change' raised LookupError: the garden is gone"
    outcome = network.command("start", "seasonal_change", "--input", json.dumps(first), exit_code=1)
    assert "the form of 'seasonal_change' raised LookupError: the garden is gone" in outcome.stderr
    network.close_gate("no-garden")
    network.finish("seasonal_change", first, {})
    network.close_gate("season")
