"""Find subscriptions by a search text: the newest first, a page after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.lists.columns import Condition, all_of
from orchestrator.db.lists.request import ListRequest, Window, read_request
from orchestrator.db.lists.statement import Lookups, Statement
from orchestrator.db.lists.subscriptions import page_subscriptions
from orchestrator.db.subscriptions.queries import PRODUCT_ID, SubscriptionSummary
from orchestrator.db.thread_session import either
from orchestrator.errors import NotFoundError


@either
async def search_subscriptions(
    session: AsyncSession,
    search: str,
    *,
    statuses: Iterable[str] = (),
    product: str | None = None,
    customer: str | None = None,
    insync: bool | None = None,
    limit: int,
    after: UUID | None = None,
) -> list[SubscriptionSummary]:
    """Return a page of the subscriptions that fit a search text, the newest first.

    A text is looked for in the description, customer, note, status and id, in the product's name, type and tag, and in the
    values and labels of the blocks; ``docs/http-lists.md`` says how it is written.

    Args:
        statuses: any of these; all when empty.
        product: its name or id.
        after: the last subscription of the page before.

    Raises:
        InvalidQueryError: the search text is too long.
        NotFoundError: there is no such product, or no subscription ``after``.
        QueryTimeoutError.
    """
    terms = read_request(query=search).terms
    wanted = list(statuses)

    def narrow(lookups: Lookups) -> Condition:
        conditions: list[Condition] = []
        if wanted:
            conditions.append(lambda statement, _: f"s.status = ANY({statement.add(wanted, 'text[]')})")
        if customer is not None:
            conditions.append(lambda statement, _: f"s.customer_id = {statement.add(customer, 'text')}")
        if insync is not None:
            conditions.append(lambda *_: "s.insync" if insync else "NOT s.insync")
        if product is not None:
            conditions.append(_of_product(lookups, product))
        if after is not None:
            conditions.append(_after(lookups, after))
        return all_of(*conditions)

    page = await page_subscriptions(session, ListRequest(Window(0, limit), terms=terms), narrow)
    return [
        SubscriptionSummary(
            row["subscription_id"],
            row["description"],
            row["status"],
            row["insync"],
            row["customer_id"],
            row["product_name"],
            row["note"],
            row["version"],
            row["start_date"],
            row["end_date"],
            row["created_at"],
            row["last_modified_at"],
            row["locked_by"],
        )
        for row in page.rows
    ]


def _of_product(lookups: Lookups, product: str) -> Condition:
    number = lookups.select(PRODUCT_ID.format(product=lookups.add(product, "text")))

    def condition(statement: Statement, answers: Sequence[object]) -> str:
        if answers[number] is None:
            raise NotFoundError(f"there is no product {product!r}")
        return f"s.product_id = {statement.add(answers[number], 'uuid')}"

    return condition


def _after(lookups: Lookups, after: UUID) -> Condition:
    number = lookups.select(
        f"SELECT created_at FROM subscriptions WHERE subscription_id = {lookups.add(after, 'uuid')}"  # noqa: S608
    )

    def condition(statement: Statement, answers: Sequence[object]) -> str:
        if answers[number] is None:
            raise NotFoundError(f"there is no subscription {after}, after which the page would begin")
        moment, last = statement.add(answers[number], "timestamptz"), statement.add(after, "uuid")
        return f"s.created_at <= {moment} AND (s.created_at < {moment} OR s.subscription_id > {last})"

    return condition
