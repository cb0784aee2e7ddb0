"""The blocks of a subscription as a flat list in which each knows the one around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from orchestrator.api.graphql.pages import camel_case
from orchestrator.db.subscriptions.tree import ShownBlock


def number_blocks(blocks: Sequence[ShownBlock]) -> Iterator[tuple[int, int | None, ShownBlock]]:
    """Return each block with its number and that of the one around it, the outer ones first."""
    waiting: list[tuple[int | None, ShownBlock]] = [(None, one) for one in reversed(blocks)]
    number = 0
    while waiting:
        parent, block = waiting.pop()
        yield number, parent, block
        waiting += [(number, one) for one in reversed(block.blocks)]
        number += 1


def list_values(block: ShownBlock) -> list[dict[str, Any]]:
    """Return the values of a block, its name and label first."""
    values: dict[str, Any] = {"name": block.name}
    if block.label is not None:
        values["label"] = block.label
    values |= {camel_case(name): value for name, value in block.resources.items() if name not in values}
    return [{"field": name, "value": value} for name, value in values.items()]


def describe_users(users: Sequence[tuple[UUID, UUID]]) -> list[dict[str, str]]:
    """Return who has a block in a field, as the field's user interface reads it."""
    return [
        {"subscription_id": str(subscription), "subscription_instance_id": str(block)} for subscription, block in users
    ]
