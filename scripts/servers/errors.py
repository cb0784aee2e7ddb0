"""What can go wrong in words for the person at the terminal, and how progress is told."""

from __future__ import annotations


class ServicesError(Exception):
    """Something the person at the terminal must know or mend; printed without a traceback."""


def say(text: str) -> None:
    """Print one line of progress at once, also into a pipe."""
    print(text, flush=True)
