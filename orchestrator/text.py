"""What others have said, as text that everything of ours can hold: the database, messages, the broker's headers."""

from __future__ import annotations

import traceback

MAX_TEXT = 16_000
"""Characters of an error's message, and of its traceback, that are kept in the log. Every attempt writes them again, lists and
messages carry them, and a person reads the beginning and the end: an error may quote the whole answer of a device."""


def storable(text: str) -> str:
    """The text without what PostgreSQL or UTF-8 cannot hold: null characters, and halves of surrogate pairs."""
    return text.replace("\0", "\\0").encode("utf-8", "replace").decode()


def message_of(error: BaseException) -> str:
    """What an error says; its class when that is nothing."""
    try:
        text = str(error)
    except Exception:
        # An exception of an author's own, whose text cannot be made.
        text = ""
    return storable(text or type(error).__name__)


def class_and_message(error: BaseException) -> str:
    """An error with its class, in one text."""
    name, message = type(error).__name__, message_of(error)
    return name if message == name else f"{name}: {message}"


def traceback_of(error: BaseException) -> str:
    """Where an error happened, in full; whoever keeps it takes what is :func:`shortened`."""
    return storable("".join(traceback.format_exception(error)))


def shortened(text: str) -> str:
    """The text as it is kept in the log: beginning and end, if it is longer than :data:`MAX_TEXT`."""
    if len(text) <= MAX_TEXT:
        return text
    # What is kept leaves room for the words between.
    kept = MAX_TEXT // 2 - 50
    return f"{text[:kept]}\n[… {len(text) - 2 * kept} characters left out …]\n{text[-kept:]}"
