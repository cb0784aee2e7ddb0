"""Start many processes from a step, in the step's commit.

Each child has a key that is made of its parent, the parent's step and the item. The database keeps it unique, so a step that runs
again starts only what is missing. The children are stored by the step's own session, many in one statement. They are due at
once, and marked as not published: when the step has committed, the next round of any coordinator's reconciler publishes their
events and first commands, whatever has become of the step's consumer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import cast

import structlog
from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.insert import NewProcess, StartFacts, find_request_keys, insert_processes
from orchestrator.db.savepoint import Savepoint
from orchestrator.db.thread_session import either
from orchestrator.engine.plan import Plan
from orchestrator.engine.state import read_back
from orchestrator.errors import DefinitionError, InvalidInputError, OrchestratorError, RequestError
from orchestrator.services.start import StartRequest, admit, fill_in, keep_plan, make_process, read_facts
from orchestrator.services.steps import RUNNING_STEP, RunningStep
from orchestrator.types import State, sort_keys

logger = structlog.get_logger(__name__)

BATCH = 200
"""Children that are stored in one statement, at most."""

BATCH_BYTES = 2_000_000
"""Bytes of JSON of the pages of one batch; those of a single child may be more."""

MOST_REASONS = 20
"""Reasons that are counted apart; all others are counted as one."""

OTHER_REASONS = "others"

LONGEST_EXAMPLE = 300
"""Characters of what a refusal said."""

Items = Iterable[Sequence[State]] | Mapping[str, Sequence[State]]


@dataclass(frozen=True, slots=True)
class StartedProcesses:
    """What became of the items. A step may return it as a value of the state: it has counts, however many items there were.

    Args:
        started: items whose process this call has started.
        already_there: items whose process this step has started before, and items that came twice.
        refused: why others were not started, by the stable key of the reason, and how many.
        examples: what was said about the first one that was refused for a reason.
    """

    started: int
    already_there: int
    refused: dict[str, int]
    examples: dict[str, str]


@either
async def start_processes(session: AsyncSession, workflow: str, items: Items) -> StartedProcesses:
    """Start a process of a workflow for each item, in the commit of the step that calls this.

    The checks are those of every start, by the user who has started the process of the step. An item that is refused does not
    stop the others. Called while the engine is paused, it starts processes, which wait until the engine is unpaused.

    Args:
        session: the step's own.
        items: for each process the pages of the workflow's form. A second process with the same pages is not started by this
            step of this process, even if the step is repeated; a mapping gives each process a key instead, which stands for it
            whatever its pages are. Read once, and a part at a time, so it may be a generator.

    Raises:
        NotFoundError: the workflow is not registered, in code or in the database.
        ForbiddenError: the user may not start it.
        DefinitionError: its module is broken; or the session is not a step's.
        PlanMismatchError: no program has registered the plan of the workflow that this one has.
    """
    step = session.info.get(RUNNING_STEP)
    if not isinstance(step, RunningStep):
        raise DefinitionError(
            "start_processes is for steps: give it the session that the step gets as its parameter 'session'"
        )
    request = StartRequest(workflow, user=step.process.started_by)
    facts = await read_facts(session, request)
    plan = await admit(session, request, facts)
    await keep_plan(session, plan, facts, request.user)
    starter = _Starter(session, step, request, plan, facts)
    for batch in starter.read(items):
        await starter.start(batch)
    logger.info("processes started", workflow=workflow, **starter.counts)
    return starter.result


@dataclass(frozen=True, slots=True)
class _Item:
    request_key: str
    pages: list[State]
    size: int


@dataclass(slots=True)
class _Starter:
    """Starts processes of one workflow, batch by batch, and counts."""

    session: AsyncSession
    step: RunningStep
    request: StartRequest
    plan: Plan
    facts: StartFacts
    started: int = 0
    already_there: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        return {
            "started": self.started,
            "already_there": self.already_there,
            "refused": self.refused.total(),
        }

    @property
    def result(self) -> StartedProcesses:
        return StartedProcesses(self.started, self.already_there, dict(self.refused), self.examples)

    def read(self, items: Items) -> Iterator[list[_Item]]:
        """Yield the items in batches; count those whose pages are not JSON."""
        # A run predicate is asked before each start, and may count those before it: they must have been stored.
        most = BATCH if self.plan.workflow.run_predicate is None else 1
        batch: list[_Item] = []
        size = 0
        for key, pages in items.items() if isinstance(items, Mapping) else ((None, one) for one in items):
            try:
                item = self._read_item(key, pages)
            except InvalidInputError as error:
                self._refuse(error)
                continue
            if batch and (len(batch) >= most or size + item.size > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += item.size
        if batch:
            yield batch

    async def start(self, batch: Sequence[_Item]) -> None:
        """Start the processes of a batch that are allowed and not there yet."""
        wanted = {item.request_key: item for item in batch}
        for key in await find_request_keys(self.session, list(wanted)):
            del wanted[key]
        new = await self._prepare(wanted.values())
        stored = await insert_processes(self.session, new)
        self.started += len(stored)
        # Beside those that were found, those that came twice, or that an attempt which was overtaken has just committed.
        self.already_there += len(batch) - len(wanted) + len(new) - len(stored)

    async def _prepare(self, items: Iterable[_Item]) -> list[NewProcess]:
        """Return the processes of those items whose start is allowed; count the others."""
        parent, limits = self.step.process, self.step.limits
        note = f"by the step {parent.step!r} of process {parent.process_id}"
        prepared = []
        savepoint = await Savepoint.set(self.session, "start_processes")
        for item in items:
            request = replace(self.request, inputs=item.pages, key=item.request_key)
            try:
                one = await fill_in(self.session, request, self.plan, self.facts, limits)
            except OrchestratorError as error:
                # A form may have sent a statement that the database has refused.
                await savepoint.go_back()
                self._refuse(error)
                continue
            new = make_process(one, limits, note)
            due_in = new.due_in if new.decision.dispatch is None else 0.0
            prepared.append(replace(new, due_in=due_in, is_published_next=False, parent_id=parent.process_id))
        await savepoint.release()
        return prepared

    def _read_item(self, key: str | None, pages: object) -> _Item:
        try:
            text = to_json(pages)
            read = read_back(text)
        except (PydanticSerializationError, RecursionError, ValueError) as error:
            raise InvalidInputError(f"the pages cannot be stored as JSON: {error}") from error
        if not isinstance(read, list) or not all(isinstance(page, dict) for page in read):
            raise InvalidInputError(f"an item is a list of the form's pages, each a dict, not {pages!r:.100}")
        identity = to_json(sort_keys(read)) if key is None else key.encode()
        digest = sha256(to_json([self.request.workflow, self.step.process.step, key is None]) + identity).hexdigest()
        return _Item(f"{self.step.process.process_id} {digest}", cast("list[State]", read), len(text))

    def _refuse(self, error: OrchestratorError) -> None:
        reasons = error.reasons if isinstance(error, RequestError) else []
        reason = str(reasons[0]["key"]) if reasons else type(error).__name__
        if reason not in self.refused and len(self.refused) >= MOST_REASONS:
            reason = OTHER_REASONS
        self.refused[reason] += 1
        self.examples.setdefault(reason, str(error)[:LONGEST_EXAMPLE])
