"""The audit of a subscription: every process that touched it, step by step, and every change of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from tests.acceptance.subscriptions.network import Network


def statuses(process: dict[str, Any]) -> list[tuple[str, str]]:
    """The steps of a process with their statuses."""
    return [(one["name"], one["status"]) for one in process["log"] if one["kind"] == "step"]


def test_the_history_lists_every_process_with_its_steps_authors_times_deltas_and_errors(network: Network) -> None:
    """B1: of a life with a failure, a retry, an abort and a person's word; no change is without a process or a person."""
    tag = uuid4().hex[:8]
    made = network.start(
        "create_node", {"product": network.product("Node P")}, {"node_name": "ams-1", "tag": tag}, user="crm"
    )
    network.finished(made)
    node = network.subscription_of(made)
    network.open_gate(f"break-rename-{tag}")
    changed = network.on("modify_node", node, {"node_name": "ams-2", "tag": tag}, user="noc")
    network.wait_for(changed, "failed")
    network.close_gate(f"break-rename-{tag}")
    network.retry(changed, user="mechanic")
    network.finished(changed)
    network.open_gate(f"break-remove-{tag}")
    ended = network.on("terminate_node", node, {"tag": tag}, user="crm")
    network.wait_for(ended, "failed")
    network.abort(ended, user="boss")
    network.command("subscriptions", "set-in-sync", str(node), "--reason", "all is well", "--user", "noc")
    final = network.start("terminate_node", {"subscription_id": str(node)}, {}, user="crm")
    network.finished(final)

    history = network.json("subscriptions", "history", str(node))
    found = history["processes"]
    assert [UUID(one["process_id"]) for one in found] == [made, changed, ended, final]
    assert [(one["workflow"], one["started_by"], one["status"]) for one in found] == [
        ("create_node", "crm", "completed"),
        ("modify_node", "noc", "completed"),
        ("terminate_node", "crm", "aborted"),
        ("terminate_node", "crm", "completed"),
    ]
    assert statuses(found[1]) == [
        ("Start", "success"),
        ("Link process to subscription", "success"),
        ("Lock subscription", "success"),
        ("Rename", "failed"),
        ("Rename", "success"),
        ("Tell the network", "success"),
        ("Look at it", "success"),
        ("Unlock subscription", "success"),
        ("Done", "complete"),
    ]
    assert statuses(found[2])[-2:] == [
        ("Remove it from the network", "failed"),
        ("Remove it from the network", "abort"),
    ]
    entries = [one for process in found for one in process["log"]]
    for one in entries:
        started, ended_at = datetime.fromisoformat(one["started_at"]), datetime.fromisoformat(one["finished_at"])
        assert started <= ended_at
        assert one["author"]
        assert isinstance(one["delta"], dict)
    failed, again = (one for one in found[1]["log"] if one["name"] == "Rename")
    assert (failed["author"], failed["try"], failed["delta"]) == ("noc", 1, {})
    assert failed["failure"]["type"] == "RuntimeError"
    assert failed["failure"]["message"] == f"rename of {tag} is broken"
    assert "in rename" in failed["failure"]["traceback"]
    assert (again["author"], again["try"], again["failure"]) == ("mechanic", 2, None)
    assert again["delta"]["subscription"]["version"] == 4

    (change,) = found[1]["changes"]
    assert change["changes"] == {"node.node_name": ["ams-1", "ams-2"], "node.renamed": [0, 1]}
    assert (change["step"], change["author"], change["version"]) == ("Rename", "mechanic", 4)
    assert change["attempt"] == again["attempt"]
    versions = [one["version"] for process in found for one in process["changes"]]
    assert versions == list(range(1, len(versions) + 1)) == list(range(1, network.row(node)["version"] + 1))
    moves = [(c["step"], c["changes"]["status"]) for p in found for c in p["changes"] if "status" in c["changes"]]
    assert moves == [
        ("Make the node", [None, "initial"]),
        ("Set subscription to 'active'", ["initial", "active"]),
        ("Set subscription to 'terminated'", ["active", "terminated"]),
    ]
    assert [(one["author"], one["note"]) for one in history["other_changes"]] == [("noc", "all is well")]

    told = network.command("subscriptions", "history", str(node)).stdout
    for words in (f"RuntimeError: rename of {tag} is broken", "started by noc", "all is well", "node.node_name"):
        assert words in told


def test_a_model_cannot_be_saved_outside_of_a_process(network: Network) -> None:
    """B1: with a session of one's own, on the project's models; the text says how it is done."""
    node = network.node()
    script = network.folder / "outside.py"
    script.write_text(OUTSIDE)
    outcome = network.python(script, str(node))
    assert "subscriptions change only in a process" in outcome
    assert network.row(node)["description"] != "changed by hand"


OUTSIDE = """
import asyncio, os, sys
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
import tests.acceptance.network.products
from orchestrator.domain import SubscriptionModel
from orchestrator.errors import ModelError

async def main():
    engine = create_async_engine(os.environ["ORCHESTRATOR_DATABASE_URL"])
    async with AsyncSession(engine) as session:
        found = await SubscriptionModel.from_subscription(session, sys.argv[1])
        found.description = "changed by hand"
        try:
            await found.save(session)
        except ModelError as error:
            print(error)
        await session.commit()
    await engine.dispose()

asyncio.run(main())
"""
