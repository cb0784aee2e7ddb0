"""What the second story needs: start workflows, wait for them, be refused, and ask the network controller."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .entrance import Entrance
from .patience import DemoError
from .screen import STYLES
from .stage import Stage

RESTING = {"completed", "suspended", "failed", "inconsistent_data", "api_unavailable", "aborted"}
"""Where a process stays until a person does something."""

Order = tuple[str, str, str, dict[str, Any]]


@dataclass(slots=True)
class Network:
    """The run of the second story.

    Args:
        products: their ids, by name.
        known: the subscriptions' ids, by the names that the story has for them.
        subjects: the same names, by the ids of the processes that work on them.
    """

    stage: Stage
    entrance: Entrance
    products: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)

    def expect_none(self, statement: str, wrong: Iterable[object]) -> None:
        """Check in the middle of the story that nothing is wrong."""
        self.stage.screen.expect_none(statement, wrong, indent=8)

    def expect(self, statement: str, holds: object, found: object = "") -> None:
        """Check in the middle of the story that a statement holds."""
        self.stage.screen.expect(statement, holds, found, indent=8)

    def see(self, event: dict[str, Any]) -> None:
        """Print an event of the engine: only what takes time, or went wrong."""
        status = event["status"]
        if "step" in event and status in {"waiting", "awaiting_callback", "suspend", "failed"}:
            label, words = self._label(event["workflow"], event["process_id"]), status.replace("_", " ")
            self.stage.screen.say(f"  {label}  {event['step']}: {words}", STYLES.get(status, "dim"))

    def _label(self, workflow: str, process_id: str) -> str:
        subject = self.subjects.get(process_id)
        return f"{workflow} {process_id[:8]}" + (f" ({subject})" if subject else "")

    def learn_products(self, *workflows: str) -> None:
        """Ask as a user interface does: a start without any page is answered with the first page's JSON schema."""
        for workflow in workflows:
            form = self.entrance.ask_to_start(workflow).form
            for definition in form["$defs"].values():
                self.products |= {name: key for key, name in definition.get("options", {}).items()}
        self.stage.screen.say(f"the forms offer these products: {', '.join(sorted(self.products))}")

    def standing(self, process_id: str) -> dict[str, Any]:
        """Return how a process stands."""
        return self.entrance.standing(process_id)

    def subscription(self, name: str) -> dict[str, Any]:
        """Return what a subscription is."""
        return self.entrance.subscription(self.known[name])

    def rest(self, process_id: str, wanted: str = "completed") -> dict[str, Any]:
        """Wait until a process rests; return how it stands.

        Raises:
            DemoError: it does not rest where it should.
        """
        began = time.monotonic()

        def resting() -> dict[str, Any] | None:
            found = self.standing(process_id)
            return found if found["status"] in RESTING else None

        found = self.stage.until(f"process {process_id} rests", resting)
        status, label = found["status"], self._label(found["workflow"], process_id)
        if status != wanted:
            raise DemoError(f"{label} is {status} at {found['step']!r}, not {wanted}: {found['failure']}")
        where = "" if status == "completed" else f" at '{found['step']}', for {found['assignee']}"
        words = f"{label}: {status.replace('_', ' ')}{where} ({time.monotonic() - began:.1f} s)"
        self.stage.screen.say(words, STYLES.get(status, ""))
        return found

    def start(self, name: str, workflow: str, *pages: dict[str, Any], by_hand: bool = False) -> str:
        """Start a workflow, which must not be refused; return the process's id."""
        answer = self.entrance.ask_to_start(workflow, *pages, by_hand=by_hand)
        if answer.process_id is None:
            raise DemoError(f"{workflow} was refused: {answer.detail}")
        self.subjects[answer.process_id] = name
        return answer.process_id

    def create(self, *orders: Order, by_hand: bool = False) -> None:
        """Make subscriptions at the same time, and remember each under its name; installations are accepted on the way.

        Args:
            orders: each a name, a workflow, the name of a product, and what the second page asks for.
            by_hand: start the first one as a person would.
        """
        processes: dict[str, str] = {}
        for number, (name, workflow, product, page) in enumerate(orders):
            pages = {"product": self.products[product]}, page
            processes[name] = self.start(name, workflow, *pages, by_hand=by_hand and number == 0)
        for name, workflow, _, _ in orders:
            if workflow in {"create_node", "create_core_link"}:
                self.rest(processes[name], "suspended")
                self.give_input(processes[name], {"accepted_by": "Noor"})
        for name, process_id in processes.items():
            self.known[name] = str(self.rest(process_id)["subscription_id"])

    def give_input(self, process_id: str, page: dict[str, Any]) -> None:
        """Answer as a person of the NOC."""
        self.entrance.give_input(process_id, page)

    def on(self, workflow: str, name: str, *pages: dict[str, Any], wanted: str = "completed", **more: Any) -> str:
        """Run a workflow on a subscription; return the process's id.

        Args:
            more: what the first page has besides the subscription.
        """
        process_id = self.start(name, workflow, {"subscription_id": self.known[name], **more}, *pages)
        self.rest(process_id, wanted)
        return process_id

    def all_on(self, *pairs: tuple[str, str]) -> None:
        """Run workflows on several subscriptions at once."""
        started = [self.start(name, workflow, {"subscription_id": self.known[name]}) for workflow, name in pairs]
        for process_id in started:
            self.rest(process_id)

    def refused(
        self, statement: str, workflow: str, *pages: dict[str, Any], key: str, naming: tuple[str, ...] = ()
    ) -> None:
        """Try what must be refused, with this reason and these words in it."""
        answer = self.entrance.ask_to_start(workflow, *pages)
        self.stage.screen.say(f"{workflow} refused: {answer.detail}", "yellow")
        reasons = [json.dumps(one) for one in answer.reasons if one.get("key") == key]
        right = answer.process_id is None and reasons and all(word in reasons[0] for word in naming)
        self.expect(f"{statement}: {key}", right, f"{answer}, to be named: {naming}")

    def configured(self, name: str) -> dict[str, Any]:
        """Return what the network controller has for a subscription."""
        return dict(self.stage.outside.ask(f"/services/{self.known[name]}")["configuration"])

    def all_configured(self) -> set[str]:
        """Return the subscriptions that the network controller has."""
        return set(self.stage.outside.ask("/services")["services"])

    def change_on_router(self, name: str, **change: object) -> None:
        """Change what is configured, as a person does who logs in to the router."""
        self.stage.outside.ask(f"/services/{self.known[name]}", "PATCH", change)
