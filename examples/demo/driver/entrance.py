"""The two ways by which the second story enters the engine: messages and commands, or the HTTP API and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from .stage import Stage

_STANDING = """
SELECT p.workflow, p.status, p.step, p.assignee,
       (SELECT subscription_id FROM processes_subscriptions WHERE process_id = p.process_id LIMIT 1) AS subscription_id,
       (SELECT failure ->> 'message' FROM process_steps l
         WHERE l.process_id = p.process_id AND failure IS NOT NULL ORDER BY sequence DESC LIMIT 1) AS failure
  FROM processes p WHERE process_id = $1
"""
_SUBSCRIPTION = (
    "SELECT s.*, p.name AS product FROM subscriptions s JOIN products p USING (product_id) WHERE subscription_id = $1"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request to start a workflow: a process, or a refusal with its text and reasons."""

    process_id: str | None
    detail: str = ""
    reasons: list[dict[str, Any]] = field(default_factory=list)
    form: dict[str, Any] = field(default_factory=dict)


class Entrance(Protocol):
    """What the story does with the engine, and what it looks at."""

    def ask_to_start(self, workflow: str, *pages: Mapping[str, Any], by_hand: bool = False) -> Answer:
        """Start a workflow; ``by_hand``: as a person would, where that is another way."""

    def give_input(self, process_id: str, page: Mapping[str, Any]) -> None:
        """Give a process its input."""

    def retry(self, process_id: str) -> None:
        """Try a failed process again."""

    def abort(self, process_id: str, reason: str) -> None:
        """End a process."""

    def standing(self, process_id: str) -> dict[str, Any]:
        """Return how a process stands."""

    def subscription(self, subscription_id: str) -> dict[str, Any]:
        """Return what a subscription is."""

    def subscriptions(self) -> list[dict[str, Any]]:
        """Return all subscriptions."""

    def history(self, subscription_id: str) -> list[dict[str, Any]]:
        """Return the processes that have touched a subscription, the oldest first."""

    def show(self, what: str, subscription_id: str = "") -> None:
        """Print what people see: ``list``, or ``show``, ``workflows``, ``history`` of a subscription."""


@dataclass(frozen=True, slots=True)
class MessagesAndCommands:
    """Another service, and a person at the command line."""

    stage: Stage

    def ask_to_start(self, workflow: str, *pages: Mapping[str, Any], by_hand: bool = False) -> Answer:
        if by_hand:
            inputs = [word for page in pages for word in ("--input", json.dumps(page))]
            return Answer(str(self.stage.json("start", workflow, *inputs)["process_id"]))
        body = self.stage.ask_to_start(workflow, *pages).body
        if "process_id" in body:
            return Answer(str(body["process_id"]))
        return Answer(None, f"{body['error']}: {body['detail']}", body["reasons"], body["form"] or {})

    def give_input(self, process_id: str, page: Mapping[str, Any]) -> None:
        self.stage.command("resume", process_id, "--input", json.dumps(page), "--user", "noor", "--json")

    def retry(self, process_id: str) -> None:
        self.stage.command("retry", process_id, "--user", "noor", "--json")

    def abort(self, process_id: str, reason: str) -> None:
        self.stage.command("abort", process_id, "--reason", reason, "--json")

    def standing(self, process_id: str) -> dict[str, Any]:
        return self.stage.rows(_STANDING, UUID(process_id))[0]

    def subscription(self, subscription_id: str) -> dict[str, Any]:
        return self.stage.rows(_SUBSCRIPTION, UUID(subscription_id))[0]

    def subscriptions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.stage.json("subscriptions", "list")
        return found

    def history(self, subscription_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.stage.json("subscriptions", "history", subscription_id)["processes"]
        return found

    def show(self, what: str, subscription_id: str = "") -> None:
        arguments = ["subscriptions", what, *filter(None, [subscription_id])]
        title = " ".join(("orchestrator", *arguments[:2], subscription_id[:8])).rstrip()
        self.stage.screen.plain(title, self.stage.command(*arguments).stdout)
