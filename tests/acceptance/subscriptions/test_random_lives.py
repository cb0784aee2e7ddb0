"""Random lives: workflows of all kinds, started side by side, failing, retried and aborted; afterwards all must add up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from orchestrator.domain import explain
from tests.acceptance.client import Received
from tests.acceptance.subscriptions.network import Network, pages
from tests.acceptance.waiting import until

RUNS, AT_ONCE, SUBSCRIPTIONS = 40, 6, 6
RESTING = {"completed", "aborted", "failed", "inconsistent_data"}
KEYS = {
    "subscription.not_in_sync",
    "subscription.relations_not_in_sync",
    "subscription.no_modify_invalid_status",
    "subscription.no_modify_subscription_in_use_by_others",
}
EXCLUSIVE = ("rename", "tell", "remove", "vlan")
"""Steps of workflows that must have the lock."""


@dataclass
class Run:
    """What is to be started, and which gates make it fail."""

    workflow: str
    subject: UUID | None
    inputs: Sequence[Mapping[str, Any]]
    gates: list[str]


@dataclass
class Lives:
    """Six subscriptions and what is done to them."""

    network: Network
    chance: random.Random
    nodes: list[UUID] = field(default_factory=list)
    lines: list[UUID] = field(default_factory=list)
    subjects: dict[UUID, UUID] = field(default_factory=dict)
    gates: dict[UUID, list[str]] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    making: bool = False

    def begin(self) -> None:
        """Four nodes and a line; the sixth is made on the way."""
        started = [self.network.start_node() for _ in range(4)]
        self.nodes = [self.network.subscription_of(self.network.finished(one)) for one in started]
        self.lines = [self.network.line(*self.nodes[:2])]

    def run(self) -> None:
        """Start a few things at the same instant."""
        runs = [self._choose() for _ in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = list(threads.map(self._ask, runs))
        for one, answer in zip(runs, answers, strict=True):
            if answer.type == "workflow.refused":
                found = {str(reason["key"]) for reason in answer.body["reasons"]}
                assert found, answer.body
                assert found <= KEYS, answer.body
                self.refusals.update(found)
                self._mend(one.gates)
                continue
            process_id = UUID(answer.body["process_id"])
            if one.subject is None:
                self.network.wait_for_note(process_id, "number")
                one.subject = self.network.subscription_of(process_id)
                self.nodes.append(one.subject)
            self.subjects[process_id], self.gates[process_id] = one.subject, one.gates

    def go_on(self) -> None:
        """Retry or abort some of what has failed."""
        for process_id in self.failed():
            decided = self.chance.random()
            if decided < 0.5:
                self._mend(self.gates[process_id])
                self.network.retry(process_id)
            elif decided < 0.65:
                self.network.retry(process_id)
            elif decided < 0.8:
                self.network.abort(process_id)

    def settle(self) -> None:
        """Wait until nothing moves, and look whether all is as it must be."""
        moving = "SELECT count(*) FROM processes WHERE process_id = ANY($1) AND NOT status = ANY($2)"
        until(
            lambda: self.network.value(moving, list(self.subjects), list(RESTING)) == 0,
            "all processes rest",
        )
        wrong = self.network.query(
            """SELECT s.subscription_id, s.insync, s.locked_by, p.status FROM subscriptions s
                 LEFT JOIN processes p ON p.process_id = s.locked_by
                WHERE s.insync <> (s.locked_by IS NULL) OR p.status = 'completed'"""
        )
        assert wrong == [], "only what has not ended well holds a lock, and only with its name on it"

    def failed(self) -> list[UUID]:
        """The processes that somebody may retry."""
        found = self.network.query(
            "SELECT process_id FROM processes WHERE process_id = ANY($1) AND status IN ('failed', 'inconsistent_data')"
            " ORDER BY process_id",
            list(self.subjects),
        )
        return [row["process_id"] for row in found]

    def end(self) -> None:
        """Declare in sync what aborted processes have left locked, and retry all others to their end."""
        for gates in self.gates.values():
            self._mend(gates)

        def all_done() -> bool:
            self._free_what_aborted_ones_hold()
            for process_id in self.failed():
                if "is terminated" in self.network.failure(process_id):
                    # It comes too late: there is nothing left to change or to compare, however often it tries.
                    self.network.abort(process_id)
                else:
                    self.network.retry(process_id)
            self.settle()
            self._free_what_aborted_ones_hold()
            return not self.failed()

        until(all_done, "everything that has failed is retried to its end")

    def _free_what_aborted_ones_hold(self) -> None:
        for subscription_id in (*self.nodes, *self.lines):
            holder = self.network.row(subscription_id)["locked_by"]
            if holder is not None and self.network.status(holder) == "aborted":
                reason = ("--reason", "the end of the test")
                self.network.command("subscriptions", "set-in-sync", str(subscription_id), *reason)

    def _choose(self) -> Run:
        early = len(self.subjects) < RUNS * 2 // 3
        workflow = self.chance.choice(
            ["modify_node"] * 4
            + ["modify_description", "validate_node", "reconcile_node", "modify_line"]
            + ["create_node" if early else "terminate_node"]
        )
        tag = f"{self.chance.getrandbits(40):x}"
        if workflow == "create_node":
            if len(self.nodes) + len(self.lines) < SUBSCRIPTIONS and not self.making:
                self.making = True
                first, page = {"product": self.network.product("Node P")}, {"node_name": "the last", "tag": tag}
                return Run(workflow, None, [first, page], self._break(["number"], tag))
            workflow = "modify_line"
        subject = self.chance.choice(self.lines if workflow == "modify_line" else self.nodes)
        if workflow in {"validate_node", "reconcile_node"}:
            name = self.network.block(subject).get("node_name")
            return Run(workflow, subject, pages(subject), self._break(["compare", "repair"], name))
        number = self.chance.randrange(1000)
        every: dict[str, dict[str, Any]] = {
            "modify_node": {"node_name": f"node {number}"},
            "modify_description": {"description": f"description {number}"},
            "modify_line": {"vlan": number},
            "terminate_node": {},
        }
        gates = self._break(["rename", "tell", "describe", "vlan", "remove"], tag)
        return Run(workflow, subject, pages(subject, {"tag": tag} | every[workflow]), gates)

    def _ask(self, run: Run) -> Received:
        return self.network.client.ask("workflow.start", {"workflow": run.workflow, "inputs": run.inputs})

    def _break(self, steps: list[str], name: object) -> list[str]:
        gates = [f"break-{step}-{name}" for step in steps if self.chance.random() < 0.25]
        for gate in gates:
            self.network.open_gate(gate)
        return gates

    def _mend(self, gates: list[str]) -> None:
        for gate in gates:
            self.network.close_gate(gate)


def assert_one_holder_at_a_time(network: Network, subjects: dict[UUID, UUID]) -> None:
    """Of the steps that need the lock, no two processes were in one at the same time on one subscription."""
    inside: dict[UUID, UUID] = {}
    for line in network.journal():
        process_id, (step, _, how) = UUID(line["process_id"]), line["what"].partition(" ")
        subject = subjects.get(process_id)
        if subject is None or step not in EXCLUSIVE:
            continue
        if how:
            assert inside.pop(subject) == process_id
        else:
            assert subject not in inside, f"{process_id} while {inside[subject]}"
            inside[subject] = process_id


def assert_history_explains(network: Network, subscriptions: list[UUID]) -> None:
    """The fold of the changes is what the subscription is; each change's old values are what was there before it."""
    told = network.state(network.finish("task_tell_all", {"all": [str(one) for one in subscriptions]}))["flat"]
    for subscription_id in subscriptions:
        rows = network.query(
            "SELECT version, changes, note FROM subscription_changes WHERE subscription_id = $1 ORDER BY change_id",
            subscription_id,
        )
        # A person's word that it is in sync is no change of what it is, and has no version of its own.
        changes = [row for row in rows if row["note"] is None]
        assert [row["version"] for row in changes] == list(range(1, len(changes) + 1))
        known: dict[str, Any] = {}
        for row in changes:
            for path, (old, new) in row["changes"].items():
                assert known.get(path) == old, f"{subscription_id}: {path} was {known.get(path)!r}, not {old!r}"
                known[path] = new
        assert explain([row["changes"] for row in changes]) == told[str(subscription_id)]
        assert {path: value for path, value in known.items() if value is not None} == told[str(subscription_id)]
        assert network.row(subscription_id)["version"] == len(changes)


@pytest.mark.parametrize("seed", [1, 20261123])
def test_random_lives_leave_one_holder_and_a_history_that_explains_everything(network: Network, seed: int) -> None:
    """B1, B28, B29: forty runs on six subscriptions, six side by side."""
    lives = Lives(network, random.Random(seed))
    lives.begin()
    while len(lives.subjects) < RUNS:
        lives.run()
        lives.settle()
        lives.go_on()
        lives.settle()
    lives.end()
    subscriptions = [*lives.nodes, *lives.lines]
    assert all(network.is_free(one) for one in subscriptions)
    assert_one_holder_at_a_time(network, lives.subjects)
    assert_history_explains(network, subscriptions)
    statuses = Counter(network.status(process_id) for process_id in lives.subjects)
    assert statuses["completed"] > 10
