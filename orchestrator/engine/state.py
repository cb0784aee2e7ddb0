"""What may enter a process's state: JSON, and not too much of it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import PydanticSerializationError, from_json, to_json

from orchestrator.engine.references import OLD_SUBSCRIPTIONS
from orchestrator.errors import InvalidResultError
from orchestrator.types import State


def canonical(returned: object, what: str) -> State:
    """Return the JSON object that a returned value stands for, as Python values.

    Dates, UUIDs, enums, dataclasses and pydantic models are written as pydantic writes them.

    Args:
        what: names the source in error texts, for example ``"the step 'Reserve a VLAN'"``.

    Raises:
        InvalidResultError: it is not a dict, or holds something that JSON or the database cannot hold.
    """
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise InvalidResultError(
            f"{what} returned {type(returned).__name__}: return a dict of new state keys, or nothing"
        )
    wrong = [key for key in returned if not isinstance(key, str)]
    if wrong:
        raise InvalidResultError(f"{what} returned the key {wrong[0]!r}: state keys are strings")
    try:
        text = to_json(dict(returned), inf_nan_mode="constants")
        value = from_json(text, allow_inf_nan=False)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise InvalidResultError(f"{what} returned something that is not JSON: {error}") from error
    if b"\\u0000" in text and has_null_character(value):
        raise InvalidResultError(f"{what} returned a string with a null character, which the database cannot hold")
    return dict(value)


def check_size(state: State, *, soft: int, hard: int) -> str | None:
    """Compare a state with the limits, in bytes of JSON.

    The engine's own copies of subscriptions do not count: they have a limit of their own.

    Returns:
        A warning when it is above the soft limit.

    Raises:
        InvalidResultError: it is above the hard limit.
    """
    size = len(to_json({key: value for key, value in state.items() if key != OLD_SUBSCRIPTIONS}))
    if size > hard:
        raise InvalidResultError(
            f"the state would have {size} bytes, more than the limit of {hard} (ORCHESTRATOR_STATE_HARD_LIMIT): keep data where"
            " it belongs and only a log of the work in the state"
        )
    if size > soft:
        return f"the state has {size} bytes, more than the soft limit of {soft} (ORCHESTRATOR_STATE_SOFT_LIMIT)"
    return None


def has_null_character(value: object) -> bool:
    """Return whether a text in a JSON value, a key included, has the one character that PostgreSQL cannot store."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(has_null_character(key) or has_null_character(item) for key, item in value.items())
    return isinstance(value, list) and any(has_null_character(item) for item in value)
