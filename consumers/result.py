"""Build the message about an outcome while the outcome is being stored, when the program has nothing to do for the step."""

from __future__ import annotations

import asyncio

from consumers.attempt import ClaimedAttempt
from orchestrator.broker.outgoing import Outgoing, complete, result_to_be
from orchestrator.db.processes.advance import Receipt
from orchestrator.engine.decision import Decision
from orchestrator.services.results import read_decision
from orchestrator.shares import working_for


class Result:
    """The message about a decision that ends an attempt."""

    def __init__(self, attempt: ClaimedAttempt, decision: Decision) -> None:
        self.attempt = attempt
        self.decision = decision
        self._message: Outgoing | None = None

    def build_meanwhile(self) -> None:
        """Build it in the second event loop iteration from now: the statement that stores the outcome is sent in the first."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._build)

    def complete(self, receipt: Receipt) -> Outgoing:
        """Return it, now that the outcome is stored."""
        message = self._message or self._build()
        return complete(message, receipt.at, receipt.announced)

    def _build(self) -> Outgoing:
        attempt, stretch, process = self.attempt, self.attempt.stretch, self.attempt.process
        read = read_decision if stretch is None else stretch.read
        fields = read(attempt.plan, self.decision)
        self._message = message = result_to_be(
            fields, process.process_id, process.workflow, process.step, working_for.get()
        )
        return message
