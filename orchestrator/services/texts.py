"""Check the texts that operators write: reasons and notes."""

from __future__ import annotations

from orchestrator.errors import InvalidInputError
from orchestrator.text import MAX_REASON, sanitise


def check_text(written: str, what: str, most: int) -> str:
    """Return a text without the white space around it.

    Args:
        what: names the text in the error.
        most: characters that it may have.

    Raises:
        InvalidInputError: it is too long, or the database cannot hold it.
    """
    if sanitise(written) != written:
        raise InvalidInputError(f"{what} has a null character or half a character, which the database cannot hold")
    text = written.strip()
    if len(text) > most:
        raise InvalidInputError(f"{what} has {len(text)} characters: {most} are the limit")
    return text


def require_reason(reason: str) -> str:
    """Return the reason for an action that needs one.

    Raises:
        InvalidInputError: there is none, or it cannot be stored.
    """
    text = check_text(reason, "the reason", MAX_REASON)
    if not text:
        raise InvalidInputError("give a reason: it goes into the process's log")
    return text
