"""Hide values marked as secret wherever a state or a delta is read for people and other programs.

``@workflow(…, secret_keys=("password",))`` marks keys of the state. Steps, forms and rewinds read the values; the statements of
this package that show states do not return them. The code of this program decides which keys are secret.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.registry import list_secret_keys

HIDDEN: Final = "(hidden)"
"""The text in place of a secret value."""

_WORKFLOW = text("SELECT workflow FROM processes WHERE process_id = :process_id")


def hiding(value: str, workflow: str) -> str:
    """Return the SQL of a JSON object without the values of its secret keys; the parameter ``secrets`` has all keys.

    Args:
        value, workflow: SQL of the object, and of the name of its workflow.
    """
    keys = f"CAST(CAST(:secrets AS text) AS jsonb) -> {workflow}"
    return (
        f"({value} || coalesce((SELECT jsonb_object_agg(k, CAST('{HIDDEN}' AS text))"  # noqa: S608 - built from constants
        f" FROM jsonb_array_elements_text({keys}) k WHERE {value} ? k), '{{}}'))"
    )


def write_secret_keys() -> str:
    """Return the parameter ``secrets``: the secret keys of all workflows that this program knows, as JSON."""
    return to_json(list_secret_keys()).decode()


async def find_secret_keys(session: AsyncSession, process_id: UUID) -> Collection[str]:
    """Return the secret keys of a process."""
    known = list_secret_keys()
    if not known:
        return ()
    return known.get(await session.scalar(_WORKFLOW, {"process_id": process_id}), ())


def hide(values: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return values without those of secret keys."""
    return {key: HIDDEN if key in keys else value for key, value in values.items()}
