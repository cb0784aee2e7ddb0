"""B5: whatever others say can be stored and sent."""

from __future__ import annotations

import pytest

from orchestrator.text import class_and_message, message_of, storable, traceback_of


class WordlessError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("text", "stored"),
    [("café 🦆", "café 🦆"), ("a\0b", "a\\0b"), ("caf\udce9", "caf?"), ("\ud83e and \udd86", "? and ?"), ("", "")],
)
def test_a_text_loses_only_what_nothing_can_hold(text: str, stored: str) -> None:
    assert storable(text) == stored
    assert storable(stored) == stored


@pytest.mark.parametrize(
    ("error", "message", "both"),
    [
        (ValueError("no file caf\udce9"), "no file caf?", "ValueError: no file caf?"),
        (ValueError(), "ValueError", "ValueError"),
        (WordlessError(), "WordlessError", "WordlessError"),
        (SystemExit(3), "3", "SystemExit: 3"),
    ],
)
def test_an_error_says_something_in_any_case(error: BaseException, message: str, both: str) -> None:
    assert (message_of(error), class_and_message(error)) == (message, both)
    assert type(error).__name__ in traceback_of(error)
