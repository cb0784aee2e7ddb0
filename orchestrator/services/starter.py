"""Start processes for an entry point: each in a transaction of its own, by the shorter of two ways."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from orchestrator.authorization import Action
from orchestrator.db.processes.insert import StartFacts, Template
from orchestrator.db.session import ENGINE_CONNECTIONS, Database
from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError, NotFoundError, WorkflowBusyError
from orchestrator.messages import Advanced
from orchestrator.registry import plan_of
from orchestrator.services.results import describe_decision
from orchestrator.services.start import PreparedStart, StartOutcome, StartRequest, make_process, start
from orchestrator.settings import Limits

AT_ONCE: Final = ENGINE_CONNECTIONS // 2
"""Connections of the small pool that starts may have at once. One that waits for another with the same key keeps its own, and
the rest of the program must not wait for that."""


REMEMBERED: Final = 1000
"""Kinds of plain starts that are remembered: each workflow with each user and sender."""


@dataclass(frozen=True, slots=True)
class _Plain:
    """What all plain starts of a workflow by one user and sender have in common.

    Args:
        message: about one of them.
    """

    plan: Plan
    template: Template
    message: Advanced


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
        self._plain: dict[tuple[str, str, str | None], _Plain] = {}

    async def start(self, request: StartRequest) -> StartOutcome:
        """Start a process, and commit.

        Raises:
            what :func:`orchestrator.services.start.start` raises.
            WorkflowBusyError, ConnectionLostError: as :meth:`orchestrator.db.author_code.AuthorCode.run`.
        """
        plain = self._find_plain(request)
        outcome = None if plain is None else await self._start_plain(request, plain)
        if outcome is not None:
            return outcome
        return await self._database.author_code.run(
            request.workflow, lambda session: start(session, request, self._limits), patience=self._patience
        )

    def _find_plain(self, request: StartRequest) -> _Plain | None:
        """Return what is known of a start if no code of authors is asked about it, and no page has to be checked."""
        if any(request.inputs):
            return None
        try:
            plan = plan_of(request.workflow)
        except (NotFoundError, DefinitionError):
            return None
        kind = (request.workflow, request.user, request.sender)
        known = self._plain.get(kind)
        if known is None or known.plan is not plan:
            known = None if _asks_authors(plan) else self._decide(request, plan)
            if known is not None:
                self._keep(kind, known)
        return known

    def _keep(self, kind: tuple[str, str, str | None], plain: _Plain) -> None:
        self._plain[kind] = plain
        if len(self._plain) > REMEMBERED:
            del self._plain[next(iter(self._plain))]

    def _decide(self, request: StartRequest, plan: Plan) -> _Plain | None:
        """Decide about a start as if nothing were unusual; ``None`` if it opens a callback."""
        facts = StartFacts(None, False, None, None, plan.fingerprint, True)
        new = make_process(PreparedStart(request, plan, facts, {}, None), self._limits)
        if new.decision.callback is not None:
            return None
        return _Plain(plan, Template(new), describe_decision(plan, new.decision, datetime.min.replace(tzinfo=UTC)))

    async def _start_plain(self, request: StartRequest, plain: _Plain) -> StartOutcome | None:
        """Start a process unless something is unusual: then nothing is stored, and the rules say what follows."""
        process_id, key = uuid4(), request.stored_key
        digest = None if key is None else request.digest()
        await self._take_place(request.workflow)
        try:
            at = await plain.template.insert_if_usual(self._database.pool, process_id, key, digest)
        finally:
            self._places.release()
        if at is None:
            return None
        return StartOutcome(process_id, plain.message.model_copy(update={"process_id": process_id, "at": at}))

    async def _take_place(self, workflow: str) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise WorkflowBusyError(
                f"{workflow!r} was not started: {AT_ONCE} starts wait for others that have their keys, and there was no place for"
                f" this one within {self._patience:g} s; send it again later"
            ) from None


def _asks_authors(plan: Plan) -> bool:
    """Return whether code of authors is asked about a start.

    A condition of the first step is code of authors, too: it is asked only when the rules are met.
    """
    hooks = (plan.workflow.initial_input_form, plan.workflow.run_predicate, plan.authorizer(Action.START))
    # A start goes past the marker to the first step, whatever that is.
    return any(hook is not None for hook in hooks) or any(leaf.guards for leaf in plan.leaves[:2])
