"""Start processes for an entry point: each in a transaction of its own, by the shorter of two ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from orchestrator.authorization import Action
from orchestrator.db.processes.insert import StartFacts, insert_if_usual
from orchestrator.db.session import ENGINE_CONNECTIONS, Database
from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError, NotFoundError, WorkflowBusyError
from orchestrator.registry import plan_of
from orchestrator.services.results import describe_decision
from orchestrator.services.start import PreparedStart, StartOutcome, StartRequest, make_process, start
from orchestrator.settings import Limits

AT_ONCE: Final = ENGINE_CONNECTIONS // 2
"""Connections of the small pool that starts may have at once. One that waits for another with the same key keeps its own, and
the rest of the program must not wait for that."""


class Starter:
    """Starts processes.

    A workflow about whose start no code of authors is asked needs one statement, which stores the process if nothing is unusual.
    Every other start is a request that calls code of authors, see :class:`~orchestrator.db.author_code.AuthorCode`, and has all
    the rules: they stand in :func:`orchestrator.services.start.start` alone.

    Args:
        patience: seconds for which a request waits for a turn to call code of authors; default until there is one.
    """

    def __init__(self, database: Database, limits: Limits, *, patience: float | None = None) -> None:
        self._database = database
        self._limits = limits
        self._patience = patience
        self._places = asyncio.Semaphore(AT_ONCE)

    async def start(self, request: StartRequest) -> StartOutcome:
        """Start a process, and commit.

        Raises:
            what :func:`orchestrator.services.start.start` raises.
            WorkflowBusyError, ConnectionLostError: as :meth:`orchestrator.db.author_code.AuthorCode.run`.
        """
        plan = _find_plain(request)
        outcome = None if plan is None else await self._start_plain(request, plan)
        if outcome is not None:
            return outcome
        return await self._database.author_code.run(
            request.workflow, lambda session: start(session, request, self._limits), patience=self._patience
        )

    async def _start_plain(self, request: StartRequest, plan: Plan) -> StartOutcome | None:
        """Start a process unless something is unusual: then nothing is stored, and the rules say what follows."""
        facts = StartFacts(None, False, None, None, plan.fingerprint, True)
        new = make_process(PreparedStart(request, plan, facts, {}, None), self._limits)
        if new.decision.callback is not None:
            return None
        key = request.stored_key
        async with self._place(request.workflow):
            at = await insert_if_usual(self._database.pool, new, key.older if key else None)
        if at is None:
            return None
        return StartOutcome(new.decision.process.process_id, describe_decision(plan, new.decision, at))

    @asynccontextmanager
    async def _place(self, workflow: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise WorkflowBusyError(
                f"{workflow!r} was not started: {AT_ONCE} starts wait for others that have their keys, and there was no place for"
                f" this one within {self._patience:g} s; send it again later"
            ) from None
        try:
            yield
        finally:
            self._places.release()


def _find_plain(request: StartRequest) -> Plan | None:
    """Return the plan of the workflow if no code of authors is asked about this start, and no page has to be checked.

    A condition of the first step is code of authors, too: it is asked only when the rules are met.
    """
    if any(request.inputs):
        return None
    try:
        plan = plan_of(request.workflow)
    except (NotFoundError, DefinitionError):
        return None
    hooks = (plan.workflow.initial_input_form, plan.workflow.run_predicate, plan.authorizer(Action.START))
    # A start goes past the marker to the first step, whatever that is.
    asks = any(leaf.guards for leaf in plan.leaves[:2])
    return plan if all(hook is None for hook in hooks) and not asks else None
