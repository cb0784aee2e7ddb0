"""The example that people copy, with the real programs: its network controller and its field engineers are programs, too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.acceptance.conftest import MakeInstallation, make_installations
from tests.acceptance.installation import Installation
from tests.acceptance.programs import OtherProgram
from tests.databases import Databases

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROJECT = {
    "ORCHESTRATOR_WORKFLOWS": "examples.network",
    "ORCHESTRATOR_MIGRATIONS": str(EXAMPLES / "network" / "migrations"),
}
IN_USE = "subscription.no_modify_subscription_in_use_by_others"


@dataclass
class Network:
    """The example at work."""

    engine: Installation
    controller: OtherProgram

    def product(self, workflow: str, name: str) -> str:
        """The id of a product, from the form that asks for it."""
        refused = self.engine.client.ask("workflow.start", {"workflow": workflow, "inputs": []})
        (choice,) = refused.body["form"]["$defs"].values()
        options: dict[str, str] = choice["options"]
        return next(key for key, label in options.items() if label == name)

    def subject(self, process_id: UUID) -> str:
        """The subscription that a process has made or changed."""
        query = "SELECT subscription_id FROM processes_subscriptions WHERE process_id = $1"
        return str(self.engine.value(query, process_id))

    def order_node(self, name: str) -> UUID:
        """A node that a field engineer has installed, and that nobody has accepted yet."""
        page = {"customer_id": "NREN", "node_name": name, "role": "PE", "management_address": "2001:db8::1"}
        process_id = self.engine.start("create_node", {"product": self.product("create_node", "Node Nokia")}, page)
        self.engine.wait_for(process_id, "suspended")
        return process_id

    def accept(self, process_id: UUID) -> str:
        """Accept what was installed; return the subscription once it is active."""
        answer = self.engine.resume(process_id, {"accepted_by": "Noor"}, user="noor")
        assert answer.type == "process.resumed", answer.body
        self.engine.wait_for(process_id, "completed")
        return self.subject(process_id)

    def create_node(self, name: str) -> str:
        """A node in service."""
        return self.accept(self.order_node(name))

    def create_port(self, node: str, name: str = "xe-0/0/1") -> str:
        """A port on a node."""
        product = {"product": self.product("create_port", "Port 10G")}
        page = {"customer_id": "NREN", "node": node, "port_name": name}
        return self.subject(self.engine.finish("create_port", product, page))

    def run(self, workflow: str, subscription_id: str, *pages: Mapping[str, object], status: str = "completed") -> UUID:
        """Run a workflow on a subscription."""
        return self.engine.finish(workflow, {"subscription_id": subscription_id}, *pages, status=status)

    def show(self, subscription_id: str) -> dict[str, Any]:
        """What the command line shows of a subscription."""
        shown: dict[str, Any] = self.engine.json("subscriptions", "show", subscription_id)
        return shown

    def ask(self, method: str, subscription_id: str, body: object = None) -> dict[str, Any]:
        """Ask the network controller for what it has for a subscription, or change it by hand."""
        return dict(self.controller.ask(f"/services/{subscription_id}", method, body)["configuration"])

    def all_configured(self) -> dict[str, Any]:
        """All that the network controller has."""
        return dict(self.controller.ask("/services")["services"])


@pytest.fixture(scope="module")
def network(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The example, running, for all tests of this module; each makes subscriptions of its own."""
    with make_installations(databases, tmp_path_factory.mktemp) as make:
        engine = make(**PROJECT)
        logs = engine.folder / "logs"
        others = [
            OtherProgram(EXAMPLES / "network/controller_program.py", logs / "controller.log"),
            OtherProgram(EXAMPLES / "demo/field_worker.py", logs / "field-worker.log", FIELD_AMQP_URL=engine.amqp_url),
        ]
        try:
            url, _ = [other.first_line() for other in others]
            engine.coordinator().ready()
            engine.consumer(NETWORK_CONTROLLER_URL=url, NETWORK_AMQP_URL=engine.amqp_url).ready()
            engine.client.listen()
            yield Network(engine, others[0])
        finally:
            for other in others:
                other.close()


def test_the_migrations_say_what_the_code_says_and_can_be_undone(installations: MakeInstallation) -> None:
    """B13, B23: the commands that write migrations find nothing to write, before and after a round trip."""
    fresh = installations(**PROJECT)
    fresh.command("db", "downgrade", "project@base")
    assert fresh.query("SELECT FROM products") == []
    fresh.command("db", "upgrade")
    assert fresh.json("db", "migrate-domain-models")["path"] is None
    assert fresh.json("db", "migrate-workflows")["path"] is None


def test_a_node_and_a_port_on_it_live_and_end_in_the_right_order(network: Network) -> None:
    """B1, B17–B19, B26: create, modify, validate, terminate; a node in use is not terminated, and the port is named."""
    node = network.create_node("ams-1")
    port = network.create_port(node)
    shown = network.show(port)
    assert (shown["status"], shown["insync"], shown["description"]) == ("active", True, "ams-1 xe-0/0/1 10G")
    assert [one["subscription_id"] for one in shown["uses"]] == [node]
    assert set(network.all_configured()) >= {node, port}

    refused = network.engine.client.ask(
        "workflow.start", {"workflow": "terminate_node", "inputs": [{"subscription_id": node}]}
    )
    assert (refused.type, refused.body["error"]) == ("workflow.refused", "WorkflowNotUsableError")
    assert refused.body["reasons"] == [{"key": IN_USE, "unterminated_in_use_by_subscriptions": [port]}]
    offers = {one["name"]: one for one in network.engine.json("subscriptions", "workflows", node)}
    assert offers["terminate_node"]["reasons"] == refused.body["reasons"]
    assert offers["modify_node"]["usable"]

    network.run("modify_port", port, {"enabled": False})
    assert network.ask("GET", port)["enabled"] is False
    network.run("validate_port", port)
    network.run("terminate_port", port)
    network.run("terminate_node", node)
    for one in (port, node):
        shown = network.show(one)
        assert (shown["status"], shown["insync"], shown["locked_by"]) == ("terminated", True, None)
        assert shown["end_date"] is not None
    assert not {node, port} & set(network.all_configured())
    told = network.engine.json("subscriptions", "history", port)
    workflows = [one["workflow"] for one in told["processes"]]
    assert workflows == ["create_port", "modify_port", "validate_port", "terminate_port"]
    assert told["other_changes"] == []


def test_a_router_changed_by_hand_is_found_reconciled_and_found_to_be_right(network: Network) -> None:
    """B20: the validation is inconsistent_data for the NOC and keeps the lock; reconciling may run all the same."""
    node = network.create_node("utr-1")
    network.ask("PATCH", node, {"role": "P"})
    validation = network.run("validate_node", node, status="inconsistent_data")
    (finding,) = [entry.failure for entry in network.engine.log(validation, "Compare with the network")]
    assert finding is not None
    assert finding["type"] == "AssertionError"
    assert "'role': 'P'" in finding["message"]
    query = "SELECT assignee FROM processes WHERE process_id = $1"
    assert network.engine.value(query, validation) == "NOC"
    assert network.show(node)["insync"] is False

    everything = network.engine.start("validate_all_nodes")
    network.engine.wait_for(everything, "inconsistent_data")
    network.run("reconcile_service", node)
    assert network.ask("GET", node)["role"] == "PE"
    for process_id in (validation, everything):
        network.engine.retry(process_id)
        network.engine.wait_for(process_id, "completed")
    assert network.show(node)["insync"] is True


def test_a_speed_change_moves_a_port_to_another_product_unless_something_runs_over_it(network: Network) -> None:
    """B18, B26: what the project adds to the rules holds; afterwards the port is the same subscription."""
    node = network.create_node("rtm-1")
    ports = [network.create_port(node, f"xe-0/0/{number}") for number in (1, 2)]
    product = {"product": network.product("create_l2vpn", "L2VPN")}
    ends = [{"port": port, "vlan": 100 + number} for number, port in enumerate(ports)]
    vpn = network.subject(
        network.engine.finish("create_l2vpn", product, {"customer_id": "Bakery", "attachments": ends})
    )
    faster = {"new_product": network.product("create_port", "Port 100G")}
    inputs = [{"subscription_id": ports[0]}, faster]
    refused = network.engine.client.ask("workflow.start", {"workflow": "change_port_speed", "inputs": inputs})
    assert [reason["key"] for reason in refused.body["reasons"]] == [IN_USE]

    network.run("modify_l2vpn", vpn, {"vlan_2": 300})
    assert [end["vlan"] for end in network.ask("GET", vpn)["ends"]] == [100, 300]
    network.run("terminate_l2vpn", vpn)
    network.run("change_port_speed", ports[0], faster)
    shown = network.show(ports[0])
    assert (shown["product"], shown["description"]) == ("Port 100G", "rtm-1 xe-0/0/1 100G")
    assert network.ask("GET", ports[0])["speed"] == 100


def test_the_description_of_a_node_may_be_corrected_while_it_is_being_provisioned(network: Network) -> None:
    """B24, B27, B30: two of the project's rules together; the lock stays with the process that creates the node."""
    process_id = network.order_node("ein-1")
    node = network.subject(process_id)
    network.run("modify_description", node, {"description": "the one in the cellar"})
    shown = network.show(node)
    assert (shown["status"], shown["locked_by"]) == ("provisioning", str(process_id))
    refused = network.engine.client.ask(
        "workflow.start", {"workflow": "modify_note", "inputs": [{"subscription_id": node}, {"note": "no"}]}
    )
    keys = {reason["key"] for reason in refused.body["reasons"]}
    assert keys == {"subscription.not_in_sync", "subscription.no_modify_invalid_status"}
    network.accept(process_id)
    shown = network.show(node)
    assert (shown["status"], shown["insync"], shown["description"]) == ("active", True, "the one in the cellar")


async def describe(engine: Installation, workflow: str, description: str) -> None:
    """Change a row of the registration, as a migration would."""
    connection = await asyncpg.connect(engine.database_url.replace("+asyncpg", ""))
    await connection.execute("UPDATE workflows SET description = $2 WHERE name = $1", workflow, description)
    await connection.close()


def test_the_task_that_ships_finds_what_code_and_database_disagree_about(network: Network) -> None:
    """B15: nothing, until one of them changes; then the failure says what it is and what to do, and a retry looks again."""
    engine = network.engine
    assert engine.json("start", "task_validate_products", "--wait")["status"] == "completed"
    asyncio.run(describe(engine, "validate_node", "Look at a node"))
    found = json.loads(engine.command("start", "task_validate_products", "--wait", "--json", exit_code=None).stdout)
    assert found["status"] == "failed"
    (entry,) = engine.log(UUID(found["process_id"]), "Compare the code with the database")
    assert entry.failure is not None
    finding = (
        "the workflow 'validate_node' has description 'Compare a node with the network' in the code and 'Look at a node' in the"
        " database: 'orchestrator db migrate-workflows' writes the migration"
    )
    assert entry.failure["message"] == f"code and database disagree in 1 point:\n• {finding}"
    assert entry.failure["details"] == {"count": 1, "findings": [finding]}
    asyncio.run(describe(engine, "validate_node", "Compare a node with the network"))
    engine.command("retry", found["process_id"], "--wait")
    assert engine.json("show", found["process_id"], "--state")["state"] == {"disagreements": 0}


def test_the_task_that_ships_lets_waiting_processes_try_again(network: Network) -> None:
    """B15: it runs on the queue ``tasks``, and says how many there were."""
    done = network.engine.json("start", "task_resume_workflows", "--wait")
    assert done["status"] == "completed"
    assert network.engine.json("show", done["process_id"], "--state")["state"]["resumed"] == 0
