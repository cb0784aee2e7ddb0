"""Find subscriptions, and the blocks that use them: what forms and steps ask of others than the one they work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from pydantic_core import to_jsonable_python
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.subscriptions.finding import UsingBlock, select_blocks_using, select_subscriptions
from orchestrator.db.subscriptions.queries import SubscriptionSummary
from orchestrator.db.thread_session import either
from orchestrator.errors import InvalidInputError
from orchestrator.types import SubscriptionLifecycle

NOT_ENDED = tuple(status for status in SubscriptionLifecycle if status is not SubscriptionLifecycle.TERMINATED)
"""All lifecycles but the last."""


@either
async def find_subscriptions(
    session: AsyncSession,
    product_type: str | None = None,
    *,
    block: str | None = None,
    values: Mapping[str, object] | None = None,
    statuses: Sequence[SubscriptionLifecycle | str] = (SubscriptionLifecycle.ACTIVE,),
) -> list[SubscriptionSummary]:
    """Find subscriptions by the type of their product, and by a block of their own and its values; newest first.

    Args:
        product_type: of their product; may be left out if ``block`` is given.
        block: the name of a product block that they have.
        values: resource type → value. One block must have all of them.
        statuses: those that they may be in.

    Raises:
        InvalidInputError: neither a product type nor a block is given; or a status does not exist.
    """
    if product_type is None and block is None:
        raise InvalidInputError(
            "find_subscriptions needs a product_type or a block: otherwise it would read all of them"
        )
    return await select_subscriptions(session, product_type, block, to_jsonable_python(values or {}), _check(statuses))


@either
async def find_blocks_using(
    session: AsyncSession,
    of: UUID | str,
    *,
    block: str | None = None,
    statuses: Sequence[SubscriptionLifecycle | str] = NOT_ENDED,
) -> list[UsingBlock]:
    """Find the blocks that have a certain block in a field, with their values: which VLANs of a port are taken, for example.

    Args:
        of: the id of the block; or that of a subscription, for those blocks of others that have any block of it.
        block: only those of this product block.
        statuses: those that the subscriptions to which the blocks belong may be in.

    Raises:
        InvalidInputError: the id is none, or a status does not exist.
    """
    try:
        identity = of if isinstance(of, UUID) else UUID(of)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{of!r} is not the id of a block or subscription") from error
    return await select_blocks_using(session, identity, block, _check(statuses))


def _check(statuses: Sequence[SubscriptionLifecycle | str]) -> list[str]:
    known = list(SubscriptionLifecycle)
    for status in statuses:
        if status not in known:
            raise InvalidInputError(f"there is no status {status!r}: there are {', '.join(known)}")
    return [SubscriptionLifecycle(status).value for status in statuses]
