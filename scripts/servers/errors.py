"""The error that scripts/services prints, and how it prints progress."""

from __future__ import annotations


class ServicesError(Exception):
    """A problem that the user has to solve; printed without a traceback."""


def say(text: str) -> None:
    """Print one line of progress at once, also into a pipe."""
    print(text, flush=True)
