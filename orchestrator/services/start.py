"""Start a process: the same checks at every entry point, all of them before a row or a message exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from uuid import UUID, uuid4

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.authorization import Action, Attempted
from orchestrator.db.plans import add_plans
from orchestrator.db.processes import insert as starts
from orchestrator.db.processes.unfinished import has_serialized_starts
from orchestrator.db.revisions import explain_age
from orchestrator.engine.decide import decide
from orchestrator.engine.events import Started
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.engine.references import SUBSCRIPTION_ID
from orchestrator.errors import (
    ConflictError,
    DefinitionError,
    EnginePausedError,
    InvalidInputError,
    NotFoundError,
    PlanMismatchError,
    PredicateFailedError,
    WorkflowBusyError,
)
from orchestrator.messages import Advanced
from orchestrator.registry import plan_of
from orchestrator.services.hooks import authorize, check_input, check_pages, check_predicate, run_form
from orchestrator.services.predicates import no_uncompleted_instance, require_still_no_instance
from orchestrator.services.results import compute_due_in, describe_decision, make_stamp
from orchestrator.services.subscriptions import require_usable
from orchestrator.settings import Limits
from orchestrator.targets import Target
from orchestrator.types import ProcessStatus, State, sort_keys
from orchestrator.workflow import Workflow

_SEPARATOR = "\x1f"
"""Between a sender and its key. No broker's user has a control character in its name."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """The start of a process that a caller requests.

    Args:
        inputs: the pages of the workflow's form, in order.
        key: repeated requests with the same key return the same process; without a key each request starts a process.
        sender: whom the broker or the API has authenticated as the one who sends this; keys of different senders have nothing to
            do with each other. ``None`` when nobody knows: all those have their keys in common.
    """

    workflow: str
    inputs: Sequence[State] = field(default_factory=tuple)
    user: str = "SYSTEM"
    key: str | None = None
    sender: str | None = None

    @property
    def stored_key(self) -> starts.RequestKey | None:
        """The key as the database knows it."""
        if self.key is None:
            return None
        if self.sender is None:
            return starts.RequestKey(self.key)
        older = starts.OlderKey(self.key, self.digest(), str(self.user))
        return starts.RequestKey(f"{self.sender}{_SEPARATOR}{self.key}", older)

    def digest(self) -> bytes:
        """Return what tells a repeated request from a different one under the same key."""
        if not self.inputs:
            return _digest_without_pages(self.workflow)
        return sha256(to_json(sort_keys([self.workflow, *self.inputs]))).digest()


@dataclass(frozen=True, slots=True)
class StartOutcome:
    """The process; ``message`` is ``None`` when an earlier request has started it."""

    process_id: UUID
    message: Advanced | None

    @property
    def created(self) -> bool:
        """Whether this request has started the process."""
        return self.message is not None


@dataclass(frozen=True, slots=True)
class PreparedStart:
    """A start that is allowed and whose form is filled in: user code has had its say, and nothing is stored yet.

    Args:
        facts: what the database said meanwhile.
        state: what the form gives.
        subscription_id: on which the workflow is to run.
        is_alone: whether its run predicate has made sure that no other process of the workflow is left.
    """

    request: StartRequest
    plan: Plan
    facts: starts.StartFacts
    state: State
    subscription_id: UUID | None
    is_alone: bool = False


async def start(
    session: AsyncSession, request: StartRequest, limits: Limits, *, patience: float | None = None
) -> StartOutcome:
    """Start a process.

    Args:
        patience: seconds for which to wait for another transaction that has started a process with the same key and has not
            ended: a step that starts processes has until it is over. Default until then.

    Raises:
        NotFoundError: the workflow is not registered, in code or in the database; the text says which. Or there is no
            such subscription.
        ForbiddenError: the user may not start it.
        PredicateFailedError: its run predicate refuses.
        WorkflowNotUsableError: it may not run on this subscription now; the error has the reasons.
        DefinitionError: its module or its form is broken.
        InvalidInputError, FormIncompleteError: the pages do not fit its form.
        EnginePausedError: the engine is paused.
        ConflictError: the key was used for a different request.
        PlanMismatchError: this program's plan of the workflow is not the registered one, and no program has registered it.
        WorkflowBusyError: the patience is over.
    """
    try:
        prepared = await prepare_start(session, request, limits)
    except PredicateFailedError as refusal:
        # A predicate that has raised may have left the transaction unusable.
        if request.key is None or refusal.__cause__ is not None:
            raise
        # It may have waited for another start, which was this very request, sent twice.
        facts = await starts.read_start_facts(session, request.workflow, request.stored_key)
        if facts.process_id is None:
            raise
        return _answer_repeated(request, facts)
    if isinstance(prepared, StartOutcome):
        return prepared
    return await store_start(session, prepared, limits, patience=patience)


async def prepare_start(session: AsyncSession, request: StartRequest, limits: Limits) -> PreparedStart | StartOutcome:
    """Check a request, and run what authors have written about starts: authorization, run predicate, form. Store nothing.

    Returns:
        What :func:`store_start` needs; or the process that an earlier request with the same key has started.

    Raises:
        what :func:`start` raises.
    """
    check_pages(request.inputs)
    facts = await read_facts(session, request)
    if facts.process_id is not None:
        return _answer_repeated(request, facts)
    plan = await admit(session, request, facts)
    _require_unpaused(facts)
    return await fill_in(session, request, plan, facts, limits)


async def read_facts(session: AsyncSession, request: StartRequest) -> starts.StartFacts:
    """Return what the database knows about a start before it."""
    fingerprint = _find_fingerprint(request.workflow)
    return await starts.read_start_facts(session, request.workflow, request.stored_key, fingerprint)


async def admit(session: AsyncSession, request: StartRequest, facts: starts.StartFacts) -> Plan:
    """Check what does not depend on the pages: is the workflow registered, and may the user start it? Return its plan.

    Raises:
        NotFoundError, DefinitionError, PlanMismatchError, ForbiddenError: as :func:`start`.
    """
    plan = await _find_plan(session, request.workflow, facts.workflow_id)
    _require_plan(plan, facts)
    attempted = Attempted(request.user, request.workflow, None, Action.START)
    await authorize(plan.authorizer(Action.START), attempted, session)
    return plan


async def fill_in(
    session: AsyncSession, request: StartRequest, plan: Plan, facts: starts.StartFacts, limits: Limits
) -> PreparedStart:
    """Check what depends on the pages and the moment: predicate, form, and may it run on the subscription?

    Raises:
        PredicateFailedError, InvalidInputError, FormIncompleteError, DefinitionError, NotFoundError, WorkflowNotUsableError: as
            :func:`start`.
    """
    workflow = plan.workflow
    await check_predicate(session, workflow, request.user)
    state = await _run_initial_form(session, plan, request, limits)
    subscription_id = _find_subject(workflow, state)
    if subscription_id is not None:
        await require_usable(session, workflow, subscription_id)
    is_alone = has_serialized_starts(session, workflow.name)
    return PreparedStart(request, plan, facts, state, subscription_id, is_alone)


async def check_request(session: AsyncSession, request: StartRequest, limits: Limits) -> None:
    """Check that a workflow could be started like that, if not now: that it is registered, allowed, and its form filled in.

    Raises:
        what :func:`start` raises about the request, and not about this moment.
    """
    check_pages(request.inputs)
    facts = await starts.read_start_facts(session, request.workflow, None, None)
    plan = await _find_plan(session, request.workflow, facts.workflow_id)
    attempted = Attempted(request.user, request.workflow, None, Action.START)
    await authorize(plan.authorizer(Action.START), attempted, session)
    _find_subject(plan.workflow, await _run_initial_form(session, plan, request, limits))


async def recheck_start(session: AsyncSession, prepared: PreparedStart) -> PreparedStart:
    """Check again what may have changed since a start was prepared in an earlier transaction. Runs no user code.

    Raises:
        what :func:`start` raises.
    """
    request, plan = prepared.request, prepared.plan
    facts = await starts.read_start_facts(session, request.workflow, request.stored_key, plan.fingerprint)
    await _find_plan(session, request.workflow, facts.workflow_id)
    _require_plan(plan, facts)
    _require_unpaused(facts)
    if plan.workflow.run_predicate is no_uncompleted_instance:
        # Of the predicates it is the one that depends on what other transactions have started since, and no user code.
        await check_predicate(session, plan.workflow, request.user)
    if prepared.is_alone:
        # The lock by which the predicate kept others from starting one has ended with its transaction.
        await require_still_no_instance(session, plan.workflow.name)
    if prepared.subscription_id is not None:
        await require_usable(session, plan.workflow, prepared.subscription_id)
    return replace(prepared, facts=facts)


async def store_start(
    session: AsyncSession,
    prepared: PreparedStart,
    limits: Limits,
    *,
    note: str | None = None,
    patience: float | None = None,
) -> StartOutcome:
    """Store the process of a prepared start. Runs no user code.

    Args:
        note: what its log is to say about the start.
        patience: as for :func:`start`.

    Raises:
        ConflictError: the key was used for a different request.
        WorkflowBusyError: as :func:`start`.
    """
    request, plan = prepared.request, prepared.plan
    await keep_plan(session, plan, prepared.facts, request.user)
    new = make_process(prepared, limits, note)
    try:
        # Without a key there is nobody to wait for.
        at = await starts.insert_process(session, new, patience=None if request.key is None else patience)
    except starts.LockWaitError as error:
        raise WorkflowBusyError(
            f"{request.workflow!r} was not started: the idempotency key {request.key!r} has been used by a transaction that has"
            " not ended, such as a running step that starts processes, or a transaction has locked a table; send it again later,"
            " then it is known what has become of that start"
        ) from error
    if at is None:
        # Another request has just used the key: the database decided which was first.
        return _answer_repeated(request, await starts.read_start_facts(session, request.workflow, request.stored_key))
    return StartOutcome(new.decision.process.process_id, describe_decision(plan, new.decision, at))


async def keep_plan(session: AsyncSession, plan: Plan, facts: starts.StartFacts, user: str) -> None:
    """Store the plan of a workflow of which there is none, because no coordinator or consumer has run so far.

    So a later move to another plan can say what is different.
    """
    if facts.registered is None:
        await add_plans(session, {plan.workflow.name: plan}, user)


def make_process(prepared: PreparedStart, limits: Limits, note: str | None = None) -> starts.NewProcess:
    """Return the process of a prepared start, as it is to be stored; its workflow's row is that of the facts."""
    request, plan, facts = prepared.request, prepared.plan, prepared.facts
    process = Process(uuid4(), request.workflow, ProcessStatus.CREATED, 0, None, 0, 0, {}, request.user, request.user)
    notes = "; ".join(filter(None, [note, _name_sender(request), _note(plan, facts)]))
    decision = decide(plan, process, Started(prepared.state, notes or None), make_stamp())
    key = request.stored_key
    return starts.NewProcess(
        decision,
        workflow_id=facts.workflow_id,
        is_task=plan.workflow.is_task,
        request_key=None if key is None else key.text,
        request_digest=None if key is None else request.digest(),
        due_in=compute_due_in(decision, limits.redispatch_after),
        subscription_id=prepared.subscription_id,
    )


def _answer_repeated(request: StartRequest, facts: starts.StartFacts) -> StartOutcome:
    assert facts.process_id is not None  # noqa: S101 - the callers have checked
    if facts.request_digest != request.digest():
        raise ConflictError(
            f"the idempotency key {request.key!r} was already used for another request (process {facts.process_id})"
        )
    return StartOutcome(facts.process_id, None)


@lru_cache(maxsize=1000)
def _digest_without_pages(workflow: str) -> bytes:
    return sha256(to_json([workflow])).digest()


def _find_fingerprint(workflow: str) -> str | None:
    try:
        return plan_of(workflow).fingerprint
    except (NotFoundError, DefinitionError):
        return None  # the start is refused with the reason, unless it is a repeated one


def _require_unpaused(facts: starts.StartFacts) -> None:
    if facts.paused:
        raise EnginePausedError(
            "the engine is paused: no process is started until it is unpaused; its status says who has paused it, and why"
        )


def _require_plan(plan: Plan, facts: starts.StartFacts) -> None:
    if facts.registered is not None and not facts.knows_plan:
        raise PlanMismatchError(
            f"this program has a plan of the workflow {plan.workflow.name!r} ({plan.fingerprint}) that no coordinator or"
            f" consumer has registered; the registered one is {facts.registered}: use a program with that code, or deploy this"
            " code (in development: restart 'orchestrator dev')"
        )


def _name_sender(request: StartRequest) -> str | None:
    """Return what the log is to say when a service starts a process in the name of another user."""
    return None if request.sender in {None, str(request.user)} else f"sent by {request.sender}"


def _note(plan: Plan, facts: starts.StartFacts) -> str | None:
    """Return what the log is to say when an older program starts a process while another plan is the registered one."""
    if facts.registered in (None, plan.fingerprint):
        return None
    return f"with the plan {plan.fingerprint}, and not with the registered one, {facts.registered}"


async def _find_plan(session: AsyncSession, name: str, workflow_id: UUID | None) -> Plan:
    """Return the plan of a workflow that is registered in code and database; otherwise the error says where it is missing."""
    try:
        plan = plan_of(name)
    except NotFoundError as error:
        if workflow_id is None:
            raise NotFoundError(f"there is no workflow {name!r}: neither in the code nor in the database") from error
        missing = f"the workflow {name!r} is registered in the database but not in the code: {error}"
        only_here = NotFoundError("; ".join(filter(None, [missing, await explain_age(session)])))
        only_here.lacks_code = True
        raise only_here from error
    if workflow_id is None:
        registers = "'orchestrator db migrate-workflows' writes the migration, 'orchestrator db upgrade' applies it"
        raise NotFoundError(
            f"the workflow {name!r} is registered in the code but not in the database (or was removed there):"
            f" {await explain_age(session) or registers}"
        )
    return plan


def _find_subject(workflow: Workflow, state: State) -> UUID | None:
    """Return the subscription that a workflow is to run on; a create workflow has none yet."""
    if workflow.target is Target.CREATE or SUBSCRIPTION_ID not in state:
        return None
    try:
        return UUID(str(state[SUBSCRIPTION_ID]))
    except ValueError as error:
        raise InvalidInputError(f"{SUBSCRIPTION_ID!r} must be a UUID, not {state[SUBSCRIPTION_ID]!r:.100}") from error


async def _run_initial_form(session: AsyncSession, plan: Plan, request: StartRequest, limits: Limits) -> State:
    what = f"the form of {request.workflow!r}"
    form = plan.workflow.initial_input_form
    if form is None:
        if any(request.inputs):
            raise InvalidInputError(f"the workflow {request.workflow!r} has no form, but input was sent")
        return {}
    arguments = plan.form.fill({}, {"state": {}, "session": session})
    return check_input(await run_form(form, arguments, request.inputs, what), what, limits)
