"""Finding a row by its id, or by as much of the beginning of the id as people care to type."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from orchestrator.db.tables import ProcessRow, SubscriptionRow
from orchestrator.errors import ConflictError, InvalidInputError, NotFoundError

MIN_PREFIX = 8
"""Characters of an id that must be given."""

_UUID_DIGITS = 32


async def find_process(session: AsyncSession, written: str) -> UUID:
    """The process that somebody means by an id or by the beginning of one.

    Raises:
        InvalidInputError: it is too short, or no part of an id.
        NotFoundError, ConflictError: no process has it, or several have.
    """
    return await _find(session, ProcessRow.process_id, written, "process", "processes")


async def find_subscription(session: AsyncSession, written: str) -> UUID:
    """The subscription that somebody means by an id or by the beginning of one.

    Raises:
        InvalidInputError: it is too short, or no part of an id.
        NotFoundError, ConflictError: no subscription has it, or several have.
    """
    return await _find(session, SubscriptionRow.subscription_id, written, "subscription", "subscriptions")


async def _find(
    session: AsyncSession, column: InstrumentedAttribute[UUID], written: str, one: str, several: str
) -> UUID:
    digits = written.strip().lower().replace("-", "")
    if not digits or len(digits) > _UUID_DIGITS or any(digit not in "0123456789abcdef" for digit in digits):
        raise InvalidInputError(f"{written!r} is not the id of a {one}")
    if len(digits) < MIN_PREFIX:
        raise InvalidInputError(f"{written!r} is too short: give at least {MIN_PREFIX} characters of the {one}'s id")
    # All ids with this beginning are neighbours in the index of the key.
    first, last = UUID(digits.ljust(_UUID_DIGITS, "0")), UUID(digits.ljust(_UUID_DIGITS, "f"))
    found = [UUID(str(it)) for it in await session.scalars(select(column).where(column.between(first, last)).limit(3))]
    if not found:
        raise NotFoundError(f"there is no {one} {written}")
    if len(found) > 1:
        # Two or three of them, of perhaps many.
        raise ConflictError(f"several {several} begin with {written}: {', '.join(map(str, found))}…")
    return found[0]
