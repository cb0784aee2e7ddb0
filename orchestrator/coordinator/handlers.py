"""Handle each kind of message that a coordinator receives. A handler returns when the message may be acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bind_contextvars

from orchestrator.broker.dead_letters import again
from orchestrator.broker.deliveries import DeclinedError
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.replies import MAX_REPLY, Replies, build_refusal, check_reply_to
from orchestrator.coordinator.senders import find_author, find_sender
from orchestrator.db.processes.due import make_due
from orchestrator.db.processes.rows import find_workflow
from orchestrator.db.session import Database
from orchestrator.errors import (
    CallbackRefusedError,
    DefinitionError,
    InvalidInputError,
    MessageError,
    NotFoundError,
    OrchestratorError,
    PlanMismatchError,
    RefusedError,
    RequestError,
    UnroutableError,
    WorkflowBusyError,
)
from orchestrator.messages import (
    AbortProcess,
    Accepted,
    Advanced,
    Look,
    Message,
    MessageType,
    ResumeProcess,
    StartReply,
    StartWorkflow,
    decode,
)
from orchestrator.services.callbacks import COMPLETED, FAILED, receive, report_progress
from orchestrator.services.control import abort, resume
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.reconcile import apply_early_answer, look
from orchestrator.services.start import StartRequest
from orchestrator.services.starter import Starter
from orchestrator.settings import Limits
from orchestrator.stopping import wait_or_stop
from orchestrator.text import sanitise

logger = structlog.get_logger(__name__)

Reconcile = Callable[[AsyncSession, UUID, Limits], Awaitable[Advanced | None]]
Outcome = tuple[MessageType, Message, Advanced | None]
"""The reply to a command, and what must be published because of it."""

PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds for which a command is kept that another coordinator may be able to carry out, each time it comes to this one. If it
comes once more no other takes it, and the sender should not wait for a refusal much longer."""

BUSY_PAUSE = 0.5
"""Seconds after which a command whose workflow is busy goes to the end of its queue: by then others may have a turn, and the
queue is not read at full speed where nothing else is in it."""

MAX_REMEMBERED = 1000
"""The most commands that this coordinator remembers to have left to others."""


class Handlers:
    """The coordinator's handlers, one for each queue.

    Args:
        max_reply: bytes of a reply.
        stopping: set when the program stops, which ends pauses.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        dispatcher: Dispatcher,
        limits: Limits,
        plans: ProgramPlans,
        max_reply: int = MAX_REPLY,
        stopping: asyncio.Event | None = None,
    ) -> None:
        self._stopping = asyncio.Event() if stopping is None else stopping
        self._database = database
        self._publisher = publisher
        self._starter = Starter(database, limits)
        self._replies = Replies(publisher, max_reply)
        self._dispatcher = dispatcher
        self._limits = limits
        self._plans = plans
        self._declined: dict[bytes, int] = {}
        self._commands: dict[str, Callable[[Delivery], Awaitable[Outcome]]] = {
            MessageType.START.value: self._start,
            MessageType.RESUME.value: self._resume,
            MessageType.ABORT.value: self._abort,
        }

    async def take_result(self, delivery: Delivery) -> None:
        """Handle a step's result, or a request to look at a process.

        A result needs no database, unless the process must move to another plan before its next step. The next command of a
        result with a plan that this program does not know is published unchanged.
        """
        if delivery.type == MessageType.STEP_RESULT:
            message = decode(Advanced, delivery.body)
            if message.next is not None and self._plans.may_move(message.workflow, message.plan):
                message = await self._reconcile(look, message.process_id) or message
            await self._dispatcher.publish(message)
            if message.status == "awaiting_callback":
                # The answer may have come before the process parked; then the database has it.
                step = next((one.name for one in reversed(message.entries) if one.kind == "step"), None)
                bind_contextvars(workflow=message.workflow, step=step)
                found = await self._reconcile(apply_early_answer, message.process_id)
                if found is not None:
                    await self._dispatcher.try_publish(found)
        elif delivery.type == MessageType.LOOK:
            await self._look(decode(Look, delivery.body))
        else:
            raise MessageError(f"the results queue takes no messages of type {delivery.type!r}")

    async def take_command(self, delivery: Delivery) -> bool:
        """Handle a command from another service. The sender gets the outcome if it has set ``reply_to``.

        Returns:
            Whether it was handled; if not, it was put back to the end of its queue.

        Raises:
            DeclinedError: another coordinator may have the code that this one lacks.
            MessageError: the command is to be dead-lettered.
        """
        execute = self._commands.get(delivery.routing_key)
        try:
            check_reply_to(delivery)
            if execute is None:
                raise MessageError(
                    f"there is no command {delivery.routing_key!r}; there are {', '.join(self._commands)}"
                )
            kind, answer, message = await execute(delivery)
        except OrchestratorError as error:
            self._leave_to_others(delivery, error)
            if isinstance(error, WorkflowBusyError) and await self._put_back(delivery):
                return False
            await self.refuse(delivery, error)
            return True
        if message is not None:
            # The command is committed, so no later error may cause it to be executed again.
            await self._dispatcher.try_publish(message)
        await self._replies.send(delivery, kind, answer)
        return True

    async def take_callback(self, delivery: Delivery) -> None:
        """Handle a completion message from an external system."""
        token = delivery.correlation_id
        if not token:
            raise MessageError("the callback has no correlation_id: it must be the token that the job came with")
        try:
            async with self._database.transaction() as session:
                match delivery.routing_key:
                    case MessageType.CALLBACK_COMPLETED:
                        message = await receive(session, token, COMPLETED, delivery.body, self._limits)
                    case MessageType.CALLBACK_FAILED:
                        message = await receive(session, token, FAILED, delivery.body, self._limits)
                    case MessageType.CALLBACK_PROGRESS:
                        message = None
                        await report_progress(session, token, delivery.body)
                    case _:
                        raise MessageError(f"there is no callback of kind {delivery.routing_key!r}")
        except CallbackRefusedError as error:
            if error.outcome == "used" and delivery.routing_key == MessageType.CALLBACK_PROGRESS:
                # Messages are handled concurrently, so the last report may come after the answer that followed it.
                logger.info("late progress report dropped")
                return
            raise MessageError(f"callback refused ({error.outcome}): {error}") from error
        except (InvalidInputError, RequestError) as error:
            raise MessageError(f"callback refused: {error}") from error
        logger.info("callback received", kind=delivery.routing_key, early=message is None)
        if message is not None:
            await self._dispatcher.try_publish(message)

    def _leave_to_others(self, delivery: Delivery, error: OrchestratorError) -> None:
        """Let another coordinator try a command that only this one's code cannot handle, as in a rolling deploy.

        Raises:
            DeclinedError: it goes back to the queue, at most as often as there are :data:`PAUSES`.
        """
        if not error.lacks_code and not isinstance(error, PlanMismatchError):
            return
        properties = f"{delivery.message_id} {delivery.correlation_id} {delivery.reply_to} "
        key = sha256(properties.encode() + delivery.body).digest()
        times = self._declined.pop(key, 0)
        if times == len(PAUSES):
            return
        self._declined[key] = times + 1
        if len(self._declined) > MAX_REMEMBERED:
            del self._declined[next(iter(self._declined))]
        logger.info("command left to another coordinator", command=delivery.routing_key, reason=sanitise(str(error)))
        raise DeclinedError(PAUSES[times])

    async def _put_back(self, delivery: Delivery) -> bool:
        """Publish a command again at the end of its queue, behind those of other workflows; return whether that was done.

        If the broker requeued it, it would be first in the queue, and after some times it would be dead-lettered. A command
        without a key is not published again: if the broker's confirm is lost there are two, which nobody could identify as one.
        """
        message = again(delivery)
        if message is None or not _has_key(delivery):
            return False
        await wait_or_stop(BUSY_PAUSE, self._stopping)
        try:
            await self._publisher.publish(message)
        except (RefusedError, UnroutableError):
            return False  # the queue is full, or gone
        logger.info("command put back: its workflow is busy", command=delivery.routing_key)
        return True

    async def _look(self, message: Look) -> None:
        found = await self._reconcile(look, message.process_id)
        if found is not None:
            await self._dispatcher.publish(found)

    async def _reconcile(self, use_case: Reconcile, process_id: UUID) -> Advanced | None:
        try:
            async with self._database.transaction() as session:
                return await use_case(session, process_id, self._limits)
        except (NotFoundError, DefinitionError, PlanMismatchError) as error:
            # A rolling deploy: another coordinator has the code and finds the process, which it leaves for that one.
            logger.warning("process left to another coordinator", process_id=str(process_id), reason=str(error))
            async with self._database.transaction() as session:
                await make_due(session, process_id)
            return None

    async def _start(self, delivery: Delivery) -> Outcome:
        command = decode(StartWorkflow, delivery.body)
        sender = await find_sender(self._database, delivery)
        user = find_author(command, sender)
        bind_contextvars(workflow=command.workflow, user=user, sender=sender)
        request = StartRequest(command.workflow, command.inputs, user, _find_key(command, delivery), sender)
        outcome = await self._starter.start(request)
        line = "workflow started" if outcome.created else "start repeated"
        # Behind the messages: the process waits for those.
        asyncio.get_running_loop().call_soon(partial(logger.info, line, process_id=str(outcome.process_id)))
        answer = StartReply(process_id=outcome.process_id, created=outcome.created)
        message = outcome.message
        if message is None and delivery.redelivered:
            # The coordinator that stored it may have died before it published anything.
            message = await self._reconcile(look, outcome.process_id)
        return MessageType.STARTED, answer, message

    async def _resume(self, delivery: Delivery) -> Outcome:
        command = decode(ResumeProcess, delivery.body)
        user = await self._find_user(command, delivery)
        key = _find_key(command, delivery)

        async def act(session: AsyncSession) -> Advanced:
            inputs, seen = command.inputs, command.seen
            return await resume(session, command.process_id, inputs, user, self._limits, key=key, seen=seen)

        workflow = await find_workflow(self._database.pool, command.process_id)
        message = await self._database.author_code.run(workflow or "", act)
        return MessageType.RESUMED, Accepted(process_id=command.process_id, status=message.status), message

    async def _abort(self, delivery: Delivery) -> Outcome:
        command = decode(AbortProcess, delivery.body)
        user = await self._find_user(command, delivery)
        async with self._database.transaction() as session:
            message = await abort(
                session,
                command.process_id,
                user,
                self._limits,
                command.reason,
                key=_find_key(command, delivery),
            )
        return MessageType.ABORTED, Accepted(process_id=command.process_id, status=message.status), message

    async def _find_user(self, command: ResumeProcess | AbortProcess, delivery: Delivery) -> str:
        sender = await find_sender(self._database, delivery)
        user = find_author(command, sender)
        bind_contextvars(process_id=str(command.process_id), user=user, sender=sender)
        return user

    async def refuse(self, delivery: Delivery, error: OrchestratorError) -> None:
        """Reply to the sender of a command with the refusal.

        Raises:
            MessageError: the command must also be dead-lettered, because the sender gets no reply or has sent an invalid one.
        """
        refusal = build_refusal(error)
        logger.info("command refused", command=delivery.routing_key, error=refusal.error, detail=refusal.detail)
        replied = await self._replies.send(delivery, MessageType.REFUSED, refusal)
        if not replied or not isinstance(error, RequestError) or isinstance(error, NotFoundError):
            raise MessageError(f"{refusal.error}: {refusal.detail}") from error


def _has_key(delivery: Delivery) -> bool:
    """Return whether a second copy of a start or a resume would be recognized."""
    is_start = delivery.routing_key == MessageType.START
    command = decode(StartWorkflow, delivery.body) if is_start else decode(ResumeProcess, delivery.body)
    return _find_key(command, delivery) is not None


def _find_key(command: StartWorkflow | ResumeProcess | AbortProcess, delivery: Delivery) -> str | None:
    """Return the key by which a command that is sent or delivered again is recognized."""
    key = command.idempotency_key or delivery.message_id
    if key is None and delivery.unreadable is not None:
        raise MessageError("whether this command was sent before cannot be known: put an idempotency_key into its body")
    if key is not None and "\0" in key:
        raise MessageError("the message_id has a null character, which the database cannot hold")
    return key
