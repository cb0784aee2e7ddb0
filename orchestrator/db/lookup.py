"""Find a process, a subscription, a schedule or a dead letter by its id, or by the first characters of the id."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from orchestrator.db.tables import DeadLetterRow, ProcessRow, ScheduleRow, SubscriptionRow
from orchestrator.errors import ConflictError, InvalidInputError, NotFoundError

MIN_PREFIX = 8
"""The fewest characters of an id that are accepted."""

_UUID_DIGITS = 32


async def find_process(session: AsyncSession, written: str) -> UUID:
    """Return the process with this id, or the only one whose id begins with these characters.

    Raises:
        InvalidInputError: the text is too short, or cannot be part of an id.
        NotFoundError: no process fits.
        ConflictError: several processes fit.
    """
    return await _find(session, ProcessRow.process_id, written, "process", "processes")


async def find_subscription(session: AsyncSession, written: str) -> UUID:
    """Return the subscription with this id, or the only one whose id begins with these characters.

    Raises:
        InvalidInputError: the text is too short, or cannot be part of an id.
        NotFoundError: no subscription fits.
        ConflictError: several subscriptions fit.
    """
    return await _find(session, SubscriptionRow.subscription_id, written, "subscription", "subscriptions")


async def find_dead_letter(session: AsyncSession, written: str) -> UUID:
    """Return the dead letter with this id, or the only one whose id begins with these characters.

    Raises:
        InvalidInputError: the text is too short, or cannot be part of an id.
        NotFoundError: no dead letter fits.
        ConflictError: several dead letters fit.
    """
    return await _find(session, DeadLetterRow.letter_id, written, "dead letter", "dead letters")


async def find_schedule(session: AsyncSession, written: str) -> UUID:
    """Return the schedule with this id, or the only one whose id begins with these characters; also one that was removed.

    Raises:
        InvalidInputError: the text is too short, or cannot be part of an id.
        NotFoundError: no schedule fits.
        ConflictError: several schedules fit.
    """
    return await _find(session, ScheduleRow.schedule_id, written, "schedule", "schedules")


async def _find(
    session: AsyncSession, column: InstrumentedAttribute[UUID], written: str, one: str, several: str
) -> UUID:
    digits = read_beginning(written, one)
    # All ids with this beginning are neighbours in the index of the key.
    first, last = UUID(digits.ljust(_UUID_DIGITS, "0")), UUID(digits.ljust(_UUID_DIGITS, "f"))
    neighbours = select(column).where(column.between(first, last)).order_by(column).limit(3)
    return choose([UUID(str(it)) for it in await session.scalars(neighbours)], written, one, several)


def read_beginning(written: str, one: str) -> str:
    """Return the hexadecimal digits of an id, or of its beginning.

    Args:
        one: what has the id, for people.

    Raises:
        InvalidInputError: the text is too short, or cannot be part of an id.
    """
    digits = written.strip().lower().replace("-", "")
    if not digits or len(digits) > _UUID_DIGITS or any(digit not in "0123456789abcdef" for digit in digits):
        raise InvalidInputError(f"{written!r} is not the id of a {one}")
    if len(digits) < MIN_PREFIX:
        raise InvalidInputError(f"{written!r} is too short: give at least {MIN_PREFIX} characters of the {one}'s id")
    return digits


def choose(found: Sequence[UUID], written: str, one: str, several: str) -> UUID:
    """Return the only id that begins like this.

    Raises:
        NotFoundError: there is none.
        ConflictError: there are several.
    """
    if not found:
        raise NotFoundError(f"there is no {one} {written}")
    if len(found) > 1:
        # There may be more: at most three were read.
        raise ConflictError(f"several {several} begin with {written}: {', '.join(map(str, found))}…")
    return found[0]
