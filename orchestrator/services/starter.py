"""Start processes for an entry point by the shorter of two ways, which starts of one moment go together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from orchestrator.authorization import Action
from orchestrator.db.processes.insert import PlainStart, StartFacts, Template, insert_if_usual
from orchestrator.db.session import Database, is_connection_error
from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError, NotFoundError, WorkflowBusyError
from orchestrator.gathering import Gathering, NotSentError
from orchestrator.messages import Advanced
from orchestrator.registry import plan_of
from orchestrator.services.results import describe_decision
from orchestrator.services.start import PreparedStart, StartOutcome, StartRequest, make_process, start
from orchestrator.settings import Limits

AT_ONCE: Final = 2
"""Statements of plain starts that are on their way at once. Each has a connection of the small pool, and keeps it while a
transaction has locked the whole table: the rest of the program must not wait for that."""

LARGEST: Final = 50
"""Starts in one statement: as many as a coordinator holds."""

REMEMBERED: Final = 1000
"""Kinds of plain starts that are remembered: each workflow with each user and sender."""


LEAST: Final = 0.1
"""Seconds of patience that are always left: another start with the same key ends within some milliseconds."""


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

    A workflow about whose start no user code is asked needs one statement, which stores the process if nothing is unusual.
    Every other start is a request that calls user code, see :class:`~orchestrator.db.author_code.AuthorCode`, and has all
    the rules: they stand in :func:`orchestrator.services.start.start` alone.

    Args:
        patience: seconds for which a request waits: to be sent with others or for a turn to call user code, and for a
            transaction that has used its key. Default until it is its turn.
    """

    def __init__(self, database: Database, limits: Limits, *, patience: float | None = None) -> None:
        self._database = database
        self._limits = limits
        self._patience = patience
        self._storing = Gathering(self._store, is_for_all=is_connection_error, at_once=AT_ONCE, largest=LARGEST)
        self._plain: dict[tuple[str, str, str | None], _Plain] = {}

    async def start(self, request: StartRequest) -> StartOutcome:
        """Start a process, and commit.

        Raises:
            what :func:`orchestrator.services.start.start` raises.
            WorkflowBusyError, ConnectionLostError: as :meth:`orchestrator.db.author_code.AuthorCode.run`.
        """
        left = self._count_down()
        plain = self._find_plain(request)
        outcome = None if plain is None else await self._start_plain(request, plain)
        if outcome is not None:
            return outcome
        return await self._database.author_code.run(
            request.workflow, lambda session: start(session, request, self._limits, patience=left()), patience=left()
        )

    def _count_down(self) -> Callable[[], float | None]:
        """Return a function that returns how much of the patience is left: all that a request waits for is one wait."""
        if (patience := self._patience) is None:
            return lambda: None
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        return lambda: max(end - loop.time(), LEAST)

    def _find_plain(self, request: StartRequest) -> _Plain | None:
        """Return what is known of a start if no user code is asked about it, and no page has to be checked."""
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
        try:
            at = await self._storing.call(plain.template.make(process_id, key, digest), patience=self._patience)
        except NotSentError:
            raise WorkflowBusyError(
                f"{request.workflow!r} was not started: the starts before it are not stored after {self._patience:g} s, because a"
                " transaction has locked a table or the server is slow; send it again later"
            ) from None
        if at is None:
            return None
        return StartOutcome(process_id, plain.message.model_copy(update={"process_id": process_id, "at": at}))

    async def _store(self, starts: list[PlainStart]) -> list[datetime | None]:
        return await insert_if_usual(self._database.pool, starts)


def _asks_authors(plan: Plan) -> bool:
    """Return whether user code is asked about a start.

    A condition of the first step is user code, too: it is asked only when the rules are met.
    """
    hooks = (plan.workflow.initial_input_form, plan.workflow.run_predicate, plan.authorizer(Action.START))
    # A start goes past the marker to the first step, whatever that is.
    return any(hook is not None for hook in hooks) or any(leaf.guards for leaf in plan.leaves[:2])
