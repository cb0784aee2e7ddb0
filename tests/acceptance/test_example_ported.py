"""The ported example, with the real programs and an inventory: plain steps and forms that use the database and block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.client import Received
from tests.acceptance.conftest import MakeInstallation, make_installations
from tests.acceptance.installation import Installation
from tests.acceptance.programs import OtherProgram
from tests.databases import Databases

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ported"
PROJECT = {"ORCHESTRATOR_WORKFLOWS": "examples.ported", "ORCHESTRATOR_MIGRATIONS": str(EXAMPLE / "migrations")}


@dataclass
class Ported:
    """The example at work."""

    engine: Installation
    inventory: OtherProgram

    def ask(self, workflow: str, *pages: Mapping[str, object]) -> Received:
        """Start a workflow with some pages of its form."""
        return self.engine.client.ask("workflow.start", {"workflow": workflow, "inputs": list(pages)})

    def options(self, workflow: str, field: str, *pages: Mapping[str, object]) -> dict[str, str]:
        """Return what a field of the next page of a form offers: value → label."""
        refused = self.ask(workflow, *pages)
        assert refused.body["error"] == "FormIncompleteError", refused.body
        form = refused.body["form"]
        choice = form["$defs"][form["properties"][field]["$ref"].rpartition("/")[2]]
        return dict(choice.get("options") or zip(choice["enum"], choice["enum"], strict=True))

    def product(self, workflow: str, name: str) -> dict[str, str]:
        """Return the first page of a create workflow."""
        return {"product": next(key for key, label in self.options(workflow, "product").items() if label == name)}

    def subject(self, process_id: UUID) -> str:
        """Return the subscription that a process has made or changed."""
        query = "SELECT subscription_id FROM processes_subscriptions WHERE process_id = $1"
        return str(self.engine.value(query, process_id))

    def create_node(self, name: str) -> str:
        """Return a node in service."""
        page = {"customer_id": "NREN", "node_name": name}
        process_id = self.engine.start("create_node", self.product("create_node", "node Nokia"), page)
        self.engine.wait_for(process_id, "suspended")
        assert self.engine.resume(process_id, {"installed_by": "Noor"}).type == "process.resumed"
        self.engine.wait_for(process_id, "completed")
        return self.subject(process_id)

    def pages_of_port(self, node: str, port_name: str) -> list[dict[str, str]]:
        """Return the filled-in pages of the form for a port."""
        port = {"port_name": port_name, "port_mode": "tagged", "port_description": "to the bakery"}
        return [self.product("create_port", "port 10G"), {"node_subscription_id": node}, port, {}]

    def show(self, subscription_id: str) -> dict[str, Any]:
        """Return what the command line shows of a subscription."""
        return dict(self.engine.json("subscriptions", "show", subscription_id))


@pytest.fixture(scope="module")
def ported(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ported]:
    """Provide the example, running, for all tests of this module; each makes subscriptions of its own."""
    with make_installations(databases, tmp_path_factory.mktemp) as make:
        engine = make(**PROJECT)
        inventory = OtherProgram(EXAMPLE / "inventory_program.py", engine.folder / "logs" / "inventory.log")
        try:
            url = inventory.first_line()
            engine.coordinator(PORTED_INVENTORY_URL=url).ready()
            engine.consumer("--queue", "default", "--queue", "tasks", PORTED_INVENTORY_URL=url).ready()
            engine.client.listen()
            yield Ported(engine, inventory)
        finally:
            inventory.close()


def test_old_migrations_say_what_the_code_says_and_can_be_undone(installations: MakeInstallation) -> None:
    fresh = installations(**PROJECT)

    assert fresh.json("db", "migrate-domain-models")["path"] is None
    assert fresh.json("db", "migrate-workflows")["path"] is None
    fresh.command("db", "downgrade", "data@base")
    assert fresh.query("SELECT FROM products") == []
    fresh.command("db", "upgrade")


def test_a_port_lives_and_ends_with_forms_and_steps_that_read_the_database(ported: Ported) -> None:
    node = ported.create_node("ams-1")
    product, chosen, port, summary = ported.pages_of_port(node, "ge-0/0/1")
    assert ported.options("create_port", "node_subscription_id", product)[node] == "ams-1"
    assert set(ported.options("create_port", "port_name", product, chosen)) >= {
        f"ge-0/0/{number}" for number in range(4)
    }

    process_id = ported.engine.finish("create_port", product, chosen, port, summary)
    shown = ported.show(ported.subject(process_id))
    assert (shown["status"], shown["description"]) == ("active", "ams-1 ge-0/0/1")
    assert [one["subscription_id"] for one in shown["uses"]] == [node]
    (recorded,) = ported.inventory.ask("/interfaces?name=ams-1%20ge-0/0/1")
    assert (recorded["mode"], recorded["enabled"]) == ("tagged", True)
    offered = ported.options("create_port", "port_name", product, chosen)
    assert "ge-0/0/1" not in offered
    assert "ge-0/0/2" in offered

    subject = {"subscription_id": shown["subscription_id"]}
    ported.engine.finish("modify_port", subject, {"port_mode": "untagged", "port_description": "to the mill"}, {})
    assert ported.inventory.ask(f"/interfaces/{recorded['id']}")["mode"] == "untagged"
    ported.engine.finish("validate_port", subject)
    ported.engine.finish("terminate_port", subject, {})
    assert ported.inventory.ask("/interfaces?name=ams-1%20ge-0/0/1") == []
    assert ported.show(shown["subscription_id"])["status"] == "terminated"


def test_a_validator_that_asks_the_database_refuses_a_name_that_is_taken(ported: Ported) -> None:
    ported.create_node("utr-1")

    refused = ported.ask(
        "create_node", ported.product("create_node", "node Cisco"), {"customer_id": "x", "node_name": "utr-1"}
    )

    assert (refused.type, refused.body["error"]) == ("workflow.refused", "InvalidInputError")
    assert "there is a node utr-1 already" in refused.body["detail"]


def test_a_port_that_was_changed_by_hand_is_found(ported: Ported) -> None:
    process_id = ported.engine.finish("create_port", *ported.pages_of_port(ported.create_node("ein-1"), "ge-0/0/0"))
    (recorded,) = ported.inventory.ask("/interfaces?name=ein-1%20ge-0/0/0")
    ported.inventory.ask(f"/interfaces/{recorded['id']}", "PATCH", {"mode": "untagged"})

    subject = {"subscription_id": ported.subject(process_id)}
    ported.engine.finish("validate_port", subject, status="inconsistent_data")
