"""Find the customers that subscriptions name. The engine has no table of them: other systems know who they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

MAX_CUSTOMERS: Final = 10_000

# One look into the index for each customer, however many subscriptions they have.
_LIST = text(
    """
    WITH RECURSIVE customers AS (
        (SELECT customer_id FROM subscriptions ORDER BY customer_id LIMIT 1)
        UNION ALL
        SELECT (SELECT s.customer_id FROM subscriptions s WHERE s.customer_id > customers.customer_id
                 ORDER BY s.customer_id LIMIT 1)
          FROM customers WHERE customers.customer_id IS NOT NULL
    )
    SELECT customer_id FROM customers WHERE customer_id IS NOT NULL LIMIT :most
    """
)


async def list_customers(session: AsyncSession) -> Sequence[str]:
    """Return the ids of the customers that have subscriptions, ten thousand at most."""
    return (await session.scalars(_LIST, {"most": MAX_CUSTOMERS})).all()
