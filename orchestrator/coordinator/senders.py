"""Find who has sent a command, as far as the broker knows it."""

from __future__ import annotations

from orchestrator.authorization import MAX_USER
from orchestrator.broker.dead_letters import find_replayed
from orchestrator.broker.incoming import Delivery
from orchestrator.db.dead_letters import read_sender
from orchestrator.db.session import Database
from orchestrator.messages import AbortProcess, ResumeProcess, StartWorkflow


async def find_sender(database: Database, delivery: Delivery) -> str | None:
    """Return the broker user in the property ``user_id`` of a message, which the broker verifies; ``None`` without it.

    A replay cannot keep the property, so its dead letter is looked up.
    """
    sender: str | None = delivery.properties.get("user_id")
    if sender is None and (letter_id := find_replayed(delivery)) is not None:
        return await read_sender(database.pool, letter_id)
    return sender


def find_author(command: StartWorkflow | ResumeProcess | AbortProcess, sender: str | None) -> str:
    """Return the user for the audit trail: the one that the sender names, else the sender."""
    return command.user if sender is None or "user" in command.model_fields_set else sender[:MAX_USER]
