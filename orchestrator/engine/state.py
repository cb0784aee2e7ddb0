"""What may be stored as JSON – in a process's state, its log, callbacks and subscriptions – and how that is read again.

PostgreSQL stores more than Python can read: it nests thousands of levels, and its numbers have up to 131,072 digits. So every
value goes through :func:`read_back` before it is stored, and through :func:`read_object` when it is read, because rows may be
older than this rule, or changed by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import CoroutineType
from typing import Any, TypeGuard

from pydantic_core import from_json, to_json

from orchestrator.engine.references import OLD_SUBSCRIPTIONS
from orchestrator.errors import InvalidResultError
from orchestrator.types import JSON, State

MAX_NESTING = 100
"""Levels of dicts and lists that a stored value has at most, those that it is stored within included. pydantic reads 200 and
writes 254, Python's own reader about 900, PostgreSQL thousands. A value is read within others, too: a block's within its
subscription's row, which are four levels more."""

_LARGE_INTEGER = 1 << 63
"""From here on, readers of JSON differ."""

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NO_BRACKETS = bytes(sorted({*range(256)} - {*b"[]{}"}))
_NEGATIVE_ZERO = re.compile(rb"(?:^|[:\[,\s])-0(?:\.0*)?(?:[eE][+-]?[0-9]+)?(?:$|[,\]}\s])")
_LARGE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9.]+e\+[0-9]+', re.DOTALL)


def canonical(returned: object, what: str) -> State:
    """Return the JSON object that a returned value stands for, as it will be read from the database.

    Dates, UUIDs, enums, dataclasses and pydantic models are written as pydantic writes them.

    Args:
        what: names the source in error texts, for example ``"the step 'Reserve a VLAN'"``.

    Raises:
        InvalidResultError: it is not a dict, or holds something that cannot be stored and read again.
    """
    if returned is None:
        return {}
    if is_flat(returned):
        return dict(returned)
    if isinstance(returned, CoroutineType):
        raise InvalidResultError(
            f"{what} returned a call that it has not awaited: write 'await' before {_name(returned)}()"
        )
    if type(returned) is not dict and not isinstance(returned, Mapping):
        raise InvalidResultError(
            f"{what} returned {type(returned).__name__}: return a dict of new state keys, or nothing"
        )
    wrong = [key for key in returned if not isinstance(key, str)]
    if wrong:
        raise InvalidResultError(f"{what} returned the key {wrong[0]!r}: state keys are strings")
    for key, one in returned.items():
        if isinstance(one, CoroutineType):
            raise InvalidResultError(
                f"{what} returned, under {key!r}, a call that it has not awaited: write 'await' before {_name(one)}()"
            )
    try:
        value = store_and_read(dict(returned))
    except ValueError as error:
        raise InvalidResultError(f"{what} returned something that cannot be stored as JSON: {error}") from error
    assert isinstance(value, dict)  # noqa: S101 - a dict was written
    return value


def is_flat(value: object) -> TypeGuard[State]:
    """Return whether a value is, by a quick check, a dict that the database returns unchanged.

    Such a dict has only ASCII strings and integers. Most steps return one, or nothing, and to write it as JSON and read it again
    takes ten times as long as this check.
    """
    if type(value) is not dict:
        return False
    for key, one in value.items():
        if type(key) is not str or not key.isascii() or "\0" in key:
            return False
        if type(one) is str:
            if not one.isascii() or "\0" in one:
                return False
        elif type(one) is int:
            if not -_LARGE_INTEGER < one < _LARGE_INTEGER:
                return False
        elif one is not None and type(one) is not bool:
            return False
    return True


def _name(coroutine: CoroutineType[Any, Any, Any]) -> str:
    name = coroutine.__qualname__
    coroutine.close()  # or Python warns of it as well
    return name


def store_and_read(value: object, *, within: int = 0) -> JSON:
    """Return what the database will give back for a value; arguments and errors are those of :func:`read_back`."""
    try:
        text = to_json(value, inf_nan_mode="constants")
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return read_back(text, within=within)


def read_back(text: bytes, *, within: int = 0) -> JSON:
    """Return the value that the database will give back for a JSON text.

    Args:
        within: levels of dicts and lists in which it will be stored.

    Raises:
        ValueError: the database cannot hold it, or it could not be read or written again; the text says why.
    """
    # Counting brackets is quick, and nearly always enough.
    if text.count(b"[") + text.count(b"{") + within > MAX_NESTING:
        nesting = measure_nesting(text) + within
        if nesting > MAX_NESTING:
            raise ValueError(describe_nesting(nesting))
    try:
        value: JSON = from_json(text, allow_inf_nan=False)
    except ValueError:
        from_json(text)  # raises, unless that is the reason
        raise ValueError("a number is infinite or NaN, which JSON does not have") from None
    if b"\\u0000" in text and _has_null_character(value):
        raise ValueError("a string has a null character, which the database cannot hold")
    # PostgreSQL's numbers have no negative zero.
    return _without_negative_zeros(value) if _NEGATIVE_ZERO.search(text) else value


def write_json(value: object) -> str:
    """Return the JSON text for a column: with large floating point numbers written out.

    PostgreSQL gives numbers back without an exponent, so that ``1e+22`` would come back as an integer; it keeps a decimal point.
    """
    text = to_json(value).decode()
    return _LARGE.sub(_write_out, text) if "e+" in text else text


def check_size(state: State, *, soft: int, hard: int) -> str | None:
    """Compare a state with the limits, in bytes of JSON.

    The engine's own copies of subscriptions do not count: they have a limit of their own.

    Returns:
        A warning when it is above the soft limit.

    Raises:
        InvalidResultError: it is above the hard limit.
    """
    counted = state
    if OLD_SUBSCRIPTIONS in state:
        counted = {key: value for key, value in state.items() if key != OLD_SUBSCRIPTIONS}
    size = len(to_json(counted))
    if size > hard:
        raise InvalidResultError(
            f"the state would have {size} bytes, more than the limit of {hard} (ORCHESTRATOR_STATE_HARD_LIMIT): keep data where"
            " it belongs and only a log of the work in the state"
        )
    if size > soft:
        return f"the state has {size} bytes, more than the soft limit of {soft} (ORCHESTRATOR_STATE_SOFT_LIMIT)"
    return None


def measure_nesting(text: bytes) -> int:
    """Return how many levels of dicts and lists a JSON text has."""
    # Remove strings, then everything but brackets: little is left of a large state.
    brackets = b"".join(_ESCAPE.sub(b"", text).split(b'"')[::2]).translate(None, _NO_BRACKETS)
    depth = deepest = 0
    for one in brackets:
        if one in b"[{":
            depth += 1
            if depth > deepest:  # noqa: PLR1730 - max() takes three times as long
                deepest = depth
        else:
            depth -= 1
    return deepest


def describe_nesting(nesting: int) -> str:
    """Return the text that a value has too many levels."""
    return f"it is nested {nesting} levels deep, and {MAX_NESTING} are the limit"


def read_value(text: str) -> JSON:
    """Return the value in a column of a row.

    Raises:
        ValueError: it cannot be read; the text says why.
    """
    try:
        value: JSON = from_json(text)
    except ValueError as error:
        nesting = measure_nesting(text.encode())
        # PostgreSQL returns valid JSON, so the only other reason is a number with thousands of digits.
        raise ValueError(describe_nesting(nesting) if nesting > MAX_NESTING else f"it has a {error}") from error
    return value


def read_object(text: str) -> tuple[State, Mapping[str, str]]:
    """Return the readable part of the JSON object in a column, and for each other key why it cannot be read.

    Something that is not an object counts as one that cannot be read, under an empty key.
    """
    unreadable = {}
    try:
        value = read_value(text)
    except ValueError as error:
        if not text.startswith("{"):
            return {}, {"": str(error)}
        value = {}
        for member in split(text):
            key, written = _split_member(member)
            try:
                value[key] = read_value(written)
            except ValueError as error:
                unreadable[key] = str(error)
    return (value, unreadable) if isinstance(value, dict) else ({}, {"": "it is not a JSON object"})


def read_leniently(text: str | None) -> State:
    """Return the JSON object in a column of a row for people, with a remark in place of each value that cannot be read."""
    value, unreadable = read_object(text or "{}")
    return {**value, **{key: f"[cannot be read: {reason}]" for key, reason in unreadable.items()}}


def split(text: str) -> Iterator[str]:
    """Yield the texts of the members of a JSON object (``"key": value``), or of the items of an array."""
    encoded = text.encode()
    depth = start = 0
    for token in _TOKEN.finditer(encoded):
        mark = token[0]
        if mark in {b"[", b"{"}:
            depth += 1
            start = token.end() if depth == 1 else start
        elif mark in {b"]", b"}"}:
            depth -= 1
        if depth == (mark == b",") and mark in {b",", b"]", b"}"}:
            if member := encoded[start : token.start()].decode().strip():
                yield member
            start = token.end()


def _split_member(member: str) -> tuple[str, str]:
    key, end = json.JSONDecoder().raw_decode(member)
    return key, member[end:].lstrip().removeprefix(":")


def _has_null_character(value: JSON) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_null_character(key) or _has_null_character(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_null_character(item) for item in value)


def _without_negative_zeros(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {key: _without_negative_zeros(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_negative_zeros(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value


def _write_out(found: re.Match[str]) -> str:
    text = found[0]
    return text if text.startswith('"') else f"{Decimal(text):f}.0"
