"""Answer read-only queries by message: a process, a subscription, the workflows, how many starts wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.coordinator.replies import Replies, build_refusal, check_reply_to
from orchestrator.db.processes.queries import read_log, read_process, read_state
from orchestrator.db.session import Database
from orchestrator.db.subscriptions import queries as subscriptions
from orchestrator.db.workflows import list_workflows
from orchestrator.engine.log import LogEntry
from orchestrator.errors import InvalidInputError, MessageError, OrchestratorError
from orchestrator.messages import Message, MessageType, decode, encode
from orchestrator.query_messages import (
    BacklogFound,
    FoundBlock,
    FoundEntry,
    FoundWorkflow,
    GetBacklog,
    GetProcess,
    GetSubscription,
    ListWorkflows,
    ProcessFound,
    SubscriptionFound,
    WorkflowsListed,
)

Answer = tuple[MessageType, bytes]

MAX_ENTRIES, FEW_ENTRIES = 200, 20
"""The number of newest log entries in an answer if all of them would be too large, and if these would be, too."""


class Queries:
    """The handler of queries.

    Args:
        backlog: counts the starts that wait.
        max_bytes: of an answer. Larger parts are left out, and the answer says which, because the broker closes the channel
            of a message that is too large.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        max_bytes: int,
        backlog: Callable[[], Awaitable[BacklogFound]],
    ) -> None:
        self._database = database
        self._replies = Replies(publisher, max_bytes)
        self._max_bytes = max_bytes
        self._backlog = backlog
        self._queries: dict[str, Callable[[AsyncSession, bytes], Awaitable[Answer]]] = {
            MessageType.GET_PROCESS.value: self._process,
            MessageType.GET_SUBSCRIPTION.value: self._subscription,
            MessageType.LIST_WORKFLOWS.value: self._workflows,
            MessageType.GET_BACKLOG.value: self._starts,
        }

    def knows(self, delivery: Delivery) -> bool:
        """Return whether a message is a query."""
        return delivery.routing_key in self._queries

    async def take(self, delivery: Delivery) -> None:
        """Answer a query to its ``reply_to``. An answer that cannot be delivered is dropped: its sender asks again.

        Raises:
            MessageError: the query cannot be understood, or names no queue for the answer.
        """
        if not delivery.reply_to:
            raise MessageError(f"{delivery.routing_key} is a query: set reply_to to the queue that the answer goes to")
        check_reply_to(delivery)
        problem: MessageError | None = None
        try:
            async with self._database.transaction() as session:
                kind, body = await self._queries[delivery.routing_key](session, delivery.body)
        except OrchestratorError as error:
            kind, body = MessageType.REFUSED, encode(build_refusal(error))
            problem = error if isinstance(error, MessageError) else None
        await self._replies.send(delivery, kind, body)
        if problem is not None:
            raise problem

    async def _process(self, session: AsyncSession, body: bytes) -> Answer:
        process_id: UUID = decode(GetProcess, body).process_id
        entries = await read_log(session, process_id)
        found = ProcessFound(
            **_fields(ProcessFound, await read_process(session, process_id)),
            steps=[_entry(one) for one in entries],
            state=await read_state(session, process_id),
        )
        return MessageType.PROCESS, self._fit(_shrink_process(found))

    async def _subscription(self, session: AsyncSession, body: bytes) -> Answer:
        shown = await subscriptions.show(session, decode(GetSubscription, body).subscription_id)
        found = SubscriptionFound(
            **_fields(SubscriptionFound, shown.summary),
            product_id=shown.product_id,
            product_type=shown.product_type,
            product_tag=shown.product_tag,
            fixed_inputs=dict(shown.fixed_inputs),
            blocks=[FoundBlock.model_validate(asdict(one)) for one in shown.blocks],
            uses=[one.subscription_id for one in shown.neighbours.uses],
            in_use_by=[one.subscription_id for one in shown.neighbours.in_use_by],
        )
        return MessageType.SUBSCRIPTION, self._fit(_shrink_subscription(found))

    async def _workflows(self, session: AsyncSession, body: bytes) -> Answer:
        decode(ListWorkflows, body)
        found = [FoundWorkflow(**asdict(one)) for one in await list_workflows(session)]
        return MessageType.WORKFLOWS, self._fit([WorkflowsListed(workflows=found)])

    async def _starts(self, _: AsyncSession, body: bytes) -> Answer:
        decode(GetBacklog, body)
        return MessageType.BACKLOG, encode(await self._backlog())

    def _fit(self, versions: Iterable[Message]) -> bytes:
        """Return the body of the first version that fits.

        Raises:
            InvalidInputError: none is.
        """
        body = b""
        for message in versions:
            body = encode(message)
            if len(body) <= self._max_bytes:
                return body
        raise InvalidInputError(
            f"the answer has {len(body)} bytes, more than a message may have (ORCHESTRATOR_MAX_MESSAGE_BYTES)"
        )


def _fields(model: type[Message], found: object) -> dict[str, Any]:
    """Return the values of a row for which the message has fields."""
    return {name: getattr(found, name) for name in model.model_fields if hasattr(found, name)}


def _entry(one: LogEntry) -> FoundEntry:
    failure = None if one.failure is None else {key: one.failure.get(key) for key in ("type", "message")}
    return FoundEntry(**_fields(FoundEntry, one) | {"failure": failure})


def _shrink_process(found: ProcessFound) -> Iterator[ProcessFound]:
    yield found
    yield found.model_copy(update={"steps": found.steps[-MAX_ENTRIES:], "left_out": ["steps"]})
    for entries in (found.steps[-MAX_ENTRIES:], found.steps[-FEW_ENTRIES:], []):
        yield found.model_copy(update={"steps": entries, "state": None, "left_out": ["steps", "state"]})


def _shrink_subscription(found: SubscriptionFound) -> Iterator[SubscriptionFound]:
    yield found
    yield found.model_copy(update={"blocks": None, "left_out": ["blocks"]})
