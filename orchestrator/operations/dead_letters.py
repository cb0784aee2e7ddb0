"""Keep messages that could not be used, show them, replay them, discard them.

A letter is a row; the queue only carries it here. A replay locks the row, publishes the message, and closes the row in the same
transaction: however it is killed, the letter is still open, or the message is published, or both; never neither.
"""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

import structlog
from pydantic_core import from_json
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.broker.dead_letters import is_replayable, original
from orchestrator.broker.outgoing import look
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Queues
from orchestrator.db import dead_letters
from orchestrator.db.dead_letters import LetterSummary, StoredLetter
from orchestrator.db.session import Database
from orchestrator.errors import ConflictError, MessageError, PublishError
from orchestrator.messages import Advanced, DeadLetter, MessageType
from orchestrator.services.callbacks import COMPLETED, FAILED, receive, report_progress
from orchestrator.settings import Limits
from orchestrator.text import sanitise
from orchestrator.types import JSON

logger = structlog.get_logger(__name__)

REPLAYED, DISCARDED = "replayed", "discarded"
"""The outcomes of a letter."""

MAX_SHOWN = 256 * 1024
"""Bytes of a body that are shown. A replay sends all of it."""

_WHOLE_SIZE = "whole_size"
"""The property of a letter that has only the beginning of its message."""

MAX_NAME = 200
"""Characters of a workflow's or step's name that are kept of what a sender has written."""


async def keep(session: AsyncSession, letter: DeadLetter, *, is_redelivered: bool) -> UUID | None:
    """Store a letter with the process, workflow and step that it is about, as far as it says.

    Returns:
        Its id; ``None`` when it is there already.
    """
    body = _read_object(letter.body) if len(letter.body) <= MAX_SHOWN else {}
    headers = letter.properties.get("headers") or {}
    return await dead_letters.insert_letter(
        session,
        letter,
        process_id=_process_id(body.get("process_id")),
        workflow=_name(body.get("workflow")) or _name(headers.get("workflow")),
        step=_name(body.get("step")) or _name(headers.get("step")),
        is_redelivered=is_redelivered,
    )


async def replay(database: Database, publisher: Publisher, letter_id: UUID, user: str, limits: Limits) -> LetterSummary:
    """Send the message of a letter again, as :func:`send_again` does, and say so in the log.

    Raises:
        see :func:`send_again`.
    """
    _log("dead letter replayed", await send_again(database, publisher, letter_id, user, limits), user)
    return await _read_summary(database, letter_id)


async def send_again(
    database: Database, publisher: Publisher, letter_id: UUID, user: str, limits: Limits
) -> StoredLetter:
    """Send the message of a letter again to where it was sent, and close the letter.

    It keeps its message id, so that it has no second effect if it had one, or is replayed twice. The answer of a callback is
    taken at once instead, by the hash of its token: the token itself is not kept.

    Raises:
        NotFoundError, ConflictError: there is no such letter, it is closed, or nobody knows where it came from.
        CallbackRefusedError, InvalidInputError, MessageError: the answer of a callback is refused again; the letter stays.
        PublishError: the broker has not confirmed the message; the letter stays open.
    """
    message: Advanced | None = None
    async with database.transaction() as session:
        stored = await dead_letters.lock_open_letter(session, letter_id)
        _require_whole(stored)
        if stored.letter.queue == Queues.CALLBACKS:
            message = await _answer(session, stored.letter, limits)
        elif is_replayable(stored.letter):
            await publisher.publish(original(stored.letter, letter_id))
        else:
            raise ConflictError(
                f"the dead letter {letter_id} says of no queue of the engine that it comes from there: discard it"
            )
        await dead_letters.close_letter(session, letter_id, REPLAYED, user)
    if message is not None:
        try:
            await publisher.publish(look(message.process_id, message.workflow))
        except PublishError as error:
            logger.warning("a coordinator was not notified; the reconciler finds it", error=str(error))
    return stored


async def discard(database: Database, letter_id: UUID, user: str) -> LetterSummary:
    """Close a letter without sending its message again.

    Raises:
        NotFoundError, ConflictError: there is no such letter, or it is closed.
    """
    async with database.transaction() as session:
        stored = await dead_letters.lock_open_letter(session, letter_id)
        await dead_letters.close_letter(session, letter_id, DISCARDED, user)
    _log("dead letter discarded", stored, user)
    return await _read_summary(database, letter_id)


def summary_document(one: LetterSummary) -> dict[str, Any]:
    """Return a letter without its body as JSON: the sender's properties under their own names."""
    names = ("message_id", "correlation_id", "app_id", "user_id", "type", "timestamp", "content_type", "reply_to")
    return {
        "id": str(one.letter_id),
        "died_at": one.died_at,
        "reason": one.reason,
        "queue": one.queue,
        "exchange": one.exchange,
        "routing_key": one.routing_key,
        "process_id": one.process_id,
        "workflow": one.workflow,
        "step": one.step,
        **{name: one.properties.get(name) for name in names},
        "headers": one.properties.get("headers", {}),
        "size": one.size,
        "outcome": one.outcome,
        "closed_at": one.closed_at,
        "closed_by": one.closed_by,
    }


def letter_document(stored: StoredLetter) -> dict[str, Any]:
    """Return a letter as JSON. ``body_encoding`` says what ``body`` is: the JSON itself, text, or Base64 of bytes."""
    body, encoding = _show(stored.letter.body)
    return {
        **summary_document(stored.summary),
        "properties": stored.summary.properties,
        "body": body,
        "body_encoding": encoding,
        "is_body_cut": len(stored.letter.body) > MAX_SHOWN or _WHOLE_SIZE in stored.summary.properties,
    }


def _require_whole(stored: StoredLetter) -> None:
    size = stored.summary.properties.get(_WHOLE_SIZE)
    if size is not None:
        raise MessageError(
            f"the message of the dead letter {stored.summary.letter_id} had {size} bytes, of which the first"
            f" {stored.summary.size} are kept: let its sender send it again, or discard the letter"
        )


async def _answer(session: AsyncSession, letter: DeadLetter, limits: Limits) -> Advanced | None:
    if letter.token_hash is None:
        raise ConflictError("the message had no token (correlation_id), so that no process takes it: discard it")
    match letter.routing_key:
        case MessageType.CALLBACK_COMPLETED:
            return await receive(session, letter.token_hash, COMPLETED, letter.body, limits)
        case MessageType.CALLBACK_FAILED:
            return await receive(session, letter.token_hash, FAILED, letter.body, limits)
        case MessageType.CALLBACK_PROGRESS:
            await report_progress(session, letter.token_hash, letter.body)
            return None
    raise MessageError(f"there is no callback of kind {letter.routing_key!r}: discard it")


async def _read_summary(database: Database, letter_id: UUID) -> LetterSummary:
    async with database.transaction() as session:
        return (await dead_letters.read_letter(session, letter_id)).summary


def _log(event: str, stored: StoredLetter, user: str) -> None:
    one = stored.summary
    logger.info(
        event,
        letter_id=str(one.letter_id),
        user=user,
        queue=one.queue,
        routing_key=one.routing_key,
        message_id=one.properties.get("message_id"),
        process_id=None if one.process_id is None else str(one.process_id),
    )


def _show(body: bytes) -> tuple[JSON, str]:
    if len(body) <= MAX_SHOWN:
        try:
            return from_json(body, allow_inf_nan=False), "json"
        except ValueError:
            pass
    shown = body[:MAX_SHOWN]
    try:
        return sanitise(shown.decode()), "text"
    except UnicodeDecodeError as error:
        # The cut may have gone through a character.
        if len(body) > MAX_SHOWN and error.start >= MAX_SHOWN - 3:
            return sanitise(shown[: error.start].decode()), "text"
        return base64.b64encode(shown).decode(), "base64"


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        value = from_json(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _process_id(written: object) -> UUID | None:
    try:
        return UUID(written) if isinstance(written, str) else None
    except ValueError:
        return None


def _name(written: object) -> str | None:
    return sanitise(written)[:MAX_NAME] if isinstance(written, str) and written else None
