"""Read filters that are written as those of Elasticsearch, into conditions of the list of subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from orchestrator.db.lists.columns import Condition, all_of, any_of, negate
from orchestrator.db.lists.request import Filter
from orchestrator.db.lists.statement import Lookups
from orchestrator.db.lists.subscriptions import COLUMNS as LIST_COLUMNS
from orchestrator.errors import InvalidQueryError

COLUMNS: Final = {
    "subscription.subscription_id": "subscription_id",
    "subscription.description": "description",
    "subscription.status": "status",
    "subscription.insync": "insync",
    "subscription.product.name": "product",
    "subscription.product.tag": "tag",
    "subscription.customer_name": "customer_id",
    "subscription.customer_abbreviation": "customer_id",
    "subscription.start_date": "start_date",
    "subscription.end_date": "end_date",
    "subscription.note": "note",
    "subscription.metadata": "metadata",
}
"""The columns of the field's user interface → those of the list. Subscriptions have no metadata, and
customers are found by their ids."""

MAX_DEPTH: Final = 10
MAX_LEAVES: Final = 50
"""Levels and conditions of one filter."""

_COMPARISONS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

Read = Callable[[Lookups], Condition]


def read_filters(written: Mapping[str, Any]) -> Read:
    """Return the condition that filters ask for, once there are lookups for it.

    Raises:
        InvalidQueryError: something of it is not supported; the text says what.
    """
    budget = [MAX_LEAVES]
    return _read(written, budget, MAX_DEPTH)


def _read(written: object, budget: list[int], depth: int) -> Read:
    if not isinstance(written, Mapping) or len(written) != 1 or depth == 0:
        raise InvalidQueryError(
            "not supported: a filter is an object with one key, such as bool or term, ten levels deep at most"
        )
    ((word, body),) = written.items()
    budget[0] -= 1
    if budget[0] < 0:
        raise InvalidQueryError(f"not supported: more than {MAX_LEAVES} filters")
    if not isinstance(body, Mapping):
        raise InvalidQueryError(f"not supported: {str(word)[:50]!r} without an object")
    if word == "bool":
        return _read_bool(body, budget, depth)
    if word == "exists":
        return _exists(body)
    if word not in {"term", "range", "wildcard"}:
        raise InvalidQueryError(f"not supported: {str(word)[:50]!r}", ["bool", "term", "range", "wildcard", "exists"])
    if len(body) != 1:
        raise InvalidQueryError(f"not supported: {word!r} of several columns")
    ((name, value),) = body.items()
    return _read_leaf(str(word), _find_column(name), value)


def _read_bool(body: Mapping[str, Any], budget: list[int], depth: int) -> Read:
    if unknown := set(body) - {"must", "should", "must_not", "filter"}:
        raise InvalidQueryError(f"not supported: {min(map(str, unknown))[:50]!r} in bool")
    parts: dict[str, list[Read]] = {
        word: [_read(one, budget, depth - 1) for one in (inner if isinstance(inner, list) else [inner])]
        for word, inner in body.items()
    }

    def condition(lookups: Lookups) -> Condition:
        found = [one(lookups) for word in ("must", "filter") for one in parts.get(word, ())]
        found += [negate(one(lookups)) for one in parts.get("must_not", ())]
        # As in Elasticsearch: without other conditions, one of these must hold.
        if parts.get("should") and not found:
            found.append(any_of(*(one(lookups) for one in parts["should"])))
        return all_of(*found)

    return condition


def _read_leaf(word: str, column: str, value: object) -> Read:
    if word == "range":
        if not isinstance(value, Mapping) or not value or set(value) - set(_COMPARISONS):
            raise InvalidQueryError("not supported: a range is an object of gt, gte, lt, lte")
        filters = [Filter(column, f"{_COMPARISONS[name]}{moment}") for name, moment in value.items()]
    else:
        inner = value.get("value") if isinstance(value, Mapping) else value
        if not isinstance(inner, str | bool | int | float) or "\0" in str(inner):
            raise InvalidQueryError(f"not supported: {word} with a value that is neither a text nor a number")
        text = str(inner).lower() if isinstance(inner, bool) else str(inner)
        if word == "wildcard" and ("*" in text[:-1] or "?" in text):
            raise InvalidQueryError("not supported: a wildcard other than one * at the end")
        filters = [Filter(column, text.lstrip("!"))]
    return lambda lookups: all_of(*(LIST_COLUMNS.filter_by(one, lookups) for one in filters))


def _exists(body: Mapping[str, Any]) -> Read:
    column = _find_column(body.get("field"))
    sql = "s.note IS NOT NULL" if column == "note" else f"s.{column} IS NOT NULL"
    if column not in {"note", "start_date", "end_date"}:
        sql = "true" if column != "metadata" else "false"
    return lambda _: lambda *__: sql


def _find_column(name: object) -> str:
    found = COLUMNS.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidQueryError(f"not supported: the column {str(name)[:100]!r}", list(COLUMNS))
    return found
