"""The installation of the project with products: what its people and their other programs do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

PROJECT = Path(__file__).parents[1] / "network"


class Network(Installation):
    """An installation of ``tests.acceptance.network``."""

    def __init__(self, folder: Path, database_url: str, amqp_url: str, **settings: str) -> None:
        super().__init__(
            folder,
            database_url,
            amqp_url,
            **{
                "ORCHESTRATOR_WORKFLOWS": "tests.acceptance.network.workflows",
                "ORCHESTRATOR_MIGRATIONS": str(PROJECT / "migrations"),
            }
            | settings,
        )

    def product(self, name: str) -> str:
        """Return the id of a product."""
        return str(self.value("SELECT product_id FROM products WHERE name = $1", name))

    def row(self, subscription_id: UUID) -> asyncpg.Record:
        """Return a subscription as its row has it."""
        return self.query("SELECT * FROM subscriptions WHERE subscription_id = $1", subscription_id)[0]

    def block(self, subscription_id: UUID, name: str = "Node") -> dict[str, Any]:
        """Return what the only block of a kind holds that a subscription owns."""
        found: dict[str, Any] = self.value(
            "SELECT resources FROM subscription_instances JOIN product_blocks USING (product_block_id)"
            " WHERE subscription_id = $1 AND name = $2",
            subscription_id,
            name,
        )
        return found

    def subscription_of(self, process_id: UUID) -> UUID:
        """Return the subscription that a process refers to."""
        return UUID(self.state(process_id)["subscription"]["subscription_id"])

    def is_free(self, subscription_id: UUID) -> bool:
        """Whether nobody holds a subscription."""
        row = self.row(subscription_id)
        return row["insync"] and row["locked_by"] is None

    def on(self, workflow: str, subscription_id: UUID, page: Mapping[str, Any] | None = None, **more: Any) -> UUID:
        """Start a workflow on a subscription."""
        return self.start(workflow, *pages(subscription_id, page), **more)

    def finish_on(
        self, workflow: str, subscription_id: UUID, page: Mapping[str, Any] | None = None, status: str = "completed"
    ) -> UUID:
        """Start a workflow on a subscription and wait until it has ended."""
        return self.finish(workflow, *pages(subscription_id, page), status=status)

    def finished(self, process_id: UUID) -> UUID:
        """Wait until a process has completed, and return its id."""
        self.wait_for(process_id, "completed")
        return process_id

    def start_node(self, product: str = "Node P", workflow: str = "create_node", **page: Any) -> UUID:
        """Start to make a node."""
        return self.start(workflow, {"product": self.product(product)}, {"node_name": f"n-{uuid4().hex[:6]}"} | page)

    def node(self, product: str = "Node P", **page: Any) -> UUID:
        """Return a new node that is active and in sync."""
        return self.subscription_of(self.finished(self.start_node(product, **page)))

    def enrolled(self, **page: Any) -> UUID:
        """Return a new node that is in no service yet."""
        return self.subscription_of(self.finished(self.start_node("Node PE", "create_node_enrollment", **page)))

    def line(self, *nodes: UUID, product: str = "Line 1G") -> UUID:
        """Return a new line that uses these nodes."""
        first, *others = map(str, nodes)
        return self.subscription_of(
            self.finish("create_line", {"product": self.product(product)}, {"first": first, "nodes": others})
        )

    def refused(
        self, workflow: str, *inputs: Mapping[str, Any], user: str = "tester", command: str = "workflow.start"
    ) -> dict[str, Any]:
        """Ask for a workflow that must not start, and return why."""
        before = self.value("SELECT count(*) FROM processes WHERE workflow = $1", workflow)
        answer = self.client.ask(command, {"workflow": workflow, "inputs": list(inputs), "user": user})
        assert answer.type == "workflow.refused", answer.body
        assert self.value("SELECT count(*) FROM processes WHERE workflow = $1", workflow) == before
        body: dict[str, Any] = answer.body
        return body

    def refused_on(
        self, workflow: str, subscription_id: UUID, page: Mapping[str, Any] | None = None, user: str = "tester"
    ) -> dict[str, Any]:
        """As above, on a subscription."""
        return self.refused(workflow, *pages(subscription_id, page), user=user)

    def reasons(
        self, workflow: str, subscription_id: UUID, page: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Why a workflow may not run on a subscription."""
        body = self.refused_on(workflow, subscription_id, page)
        assert body["error"] == "WorkflowNotUsableError", body
        found: list[dict[str, Any]] = body["reasons"]
        return found

    def offers(self, subscription_id: UUID) -> dict[str, dict[str, Any]]:
        """Return what the command line offers for a subscription, by workflow."""
        return {one["name"]: one for one in self.json("subscriptions", "workflows", str(subscription_id))}

    def held_at(self, what: str, workflow: str, subscription_id: UUID, page: Mapping[str, Any] | None = None) -> UUID:
        """Start a workflow on a subscription whose step ``what`` stops at a gate, and wait until it is there."""
        tag = uuid4().hex[:8]
        self.open_gate(f"hold-{what}-{tag}")
        process_id = self.on(workflow, subscription_id, {**(page or {}), "tag": tag})
        self.wait_for_note(process_id, what)
        return process_id

    def let_go(self, process_id: UUID) -> None:
        """Open the gates of a process."""
        for one in self.journal(process_id):
            if "tag" in one:
                self.open_gate(f"go-{one['what']}-{one['tag']}")

    def python(self, script: Path, *arguments: str) -> str:
        """Run a script with the installation's settings, and return what it prints."""
        outcome = subprocess.run(
            [sys.executable, script, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert outcome.returncode == 0, outcome.stderr
        return outcome.stdout

    def steps(self, process_id: UUID) -> list[str]:
        """Return the names of a process's steps as its log has them, in order."""
        return [one.name for one in self.log(process_id, kind="step")]

    def failure(self, process_id: UUID) -> str:
        """Why a process has failed last."""
        failures = [one.failure for one in self.log(process_id) if one.failure is not None]
        return f"{failures[-1]['type']}: {failures[-1]['message']}"

    def wait_for_failure(self, process_id: UUID, status: str = "failed") -> str:
        """Wait until a process has failed, and return why."""
        self.wait_for(process_id, status)
        return self.failure(process_id)

    def wait_for_lock(self, subscription_id: UUID, process_id: UUID) -> None:
        """Wait until a process holds a subscription."""
        until(lambda: self.row(subscription_id)["locked_by"] == process_id, f"{process_id} holds {subscription_id}")


def pages(subscription_id: UUID, page: Mapping[str, Any] | None = None) -> list[Mapping[str, Any]]:
    """Return the form of a workflow on a subscription, filled in."""
    first = {"subscription_id": str(subscription_id)}
    return [first] if page is None else [first, page]
