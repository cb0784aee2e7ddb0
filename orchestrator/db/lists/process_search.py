"""Search processes by words: who started them, their note, workflow, status and id, and the subscriptions that they touched.

First each term's processes are counted, up to a bound. If some term has few, the others are checked for these; if all have many,
the list is read in its order until the page is full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.db.lists.columns import Choice, Condition, Id, has_id, has_words
from orchestrator.db.lists.page import FEW
from orchestrator.db.lists.statement import Lookups, Statement
from orchestrator.db.lists.subscriptions import has_own_words, is_id
from orchestrator.db.lists.words import Term, Text
from orchestrator.db.session import Driver
from orchestrator.types import ProcessStatus

STATUSES: Final = tuple(status.value for status in ProcessStatus)
STATUS: Final = Choice("p.status", STATUSES)
PROCESS_ID: Final = Id("p.process_id BETWEEN {first} AND {last}")

_WORDS_OF: Final = (
    "SELECT coalesce(array_agg({key}), '{{{{}}}}') FROM {table}"
    " WHERE search_words({text}) @@ to_tsquery('pg_catalog.simple', {{query}})"
)
_OF_WORKFLOWS: Final = _WORDS_OF.format(
    key="workflow_id", table="workflows", text="name || ' ' || target || ' ' || description"
)
_OF_PRODUCTS: Final = _WORDS_OF.format(
    key="product_id", table="products", text="name || ' ' || product_type || ' ' || tag"
)


@dataclass(frozen=True, slots=True)
class Searched:
    """A term of a search text.

    Args:
        fits: whether a process fits it.
        found: the processes that fit it; given the ``LIMIT`` for each part of the search.
    """

    fits: Condition
    found: Callable[[Statement, Sequence[object], str], str]


async def find_driver(connection: Driver, terms: Sequence[Searched], answers: Sequence[object]) -> Searched | None:
    """Return the term with the fewest processes, if these are few."""
    if not terms:
        return None
    statement = Statement()
    most = statement.add(FEW + 1, "int")
    counts = ", ".join(
        f"(SELECT count(*) FROM (SELECT FROM ({one.found(statement, answers, f'LIMIT {most}')}) u LIMIT {most}) f)"  # noqa: S608
        for one in terms
    )
    (row,) = await statement.fetch(connection, f"SELECT {counts}")
    fewest, number = min((count, number) for number, count in enumerate(row))
    return terms[number] if fewest <= FEW else None


def search(term: Term, lookups: Lookups) -> Searched:
    """Return how a term without a column is looked for."""
    branches = [branch for text in term.texts for branch in _branches(text, lookups)]
    own, touched = (
        [one for one, of_process in branches if of_process],
        [one for one, of_process in branches if not of_process],
    )

    # OFFSET keeps PostgreSQL from finding all subscriptions that fit first: few processes are looked at.
    def fits(statement: Statement, answers: Sequence[object]) -> str:
        parts = [one(statement, answers) for one in own]
        parts.append(
            "EXISTS (SELECT FROM processes_subscriptions ps JOIN subscriptions s USING (subscription_id)"
            f" WHERE ps.process_id = p.process_id AND ({' OR '.join(one(statement, answers) for one in touched)}) OFFSET 0)"
        )
        return f"({' OR '.join(parts)})"

    def found(statement: Statement, answers: Sequence[object], limit: str) -> str:
        parts = [f"SELECT p.process_id FROM processes p WHERE {one(statement, answers)}" for one in own]  # noqa: S608
        which = " OR ".join(one(statement, answers) for one in touched)
        parts.append(
            f"SELECT ps.process_id FROM (SELECT s.subscription_id FROM subscriptions s WHERE {which} {limit}) s"  # noqa: S608
            " JOIN processes_subscriptions ps USING (subscription_id)"
        )
        return " UNION ALL ".join(parts)

    return Searched(fits, found)


def _branches(text: Text, lookups: Lookups) -> list[tuple[Condition, bool]]:
    """Return where a text is looked for, and whether that is a condition on the process or on a subscription of it."""
    found: list[tuple[Condition, bool]] = [
        (
            lambda statement, _: has_words(
                statement, [text], ["p.words"], "p.started_by || ' ' || coalesce(p.note, '')"
            ),
            True,
        ),
        (has_own_words(text), False),
    ]
    if text.parts:
        query = lookups.add(text.tsquery, "text")
        found.append((has_id("p.workflow_id", lookups.select(_OF_WORKFLOWS.format(query=query))), True))
        found.append((has_id("s.product_id", lookups.select(_OF_PRODUCTS.format(query=query))), False))
    if any(text.fits(status) for status in STATUSES):
        found.append((STATUS.matching([text], lookups), True))
    if is_id(text):
        found.append((PROCESS_ID.matching([text], lookups), True))
        found.append((Id("s.subscription_id BETWEEN {first} AND {last}").matching([text], lookups), False))
    return found
