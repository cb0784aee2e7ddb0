"""B5: whatever others say can be stored and sent."""

from __future__ import annotations

import pytest

from orchestrator.text import format_error, format_message, format_traceback, sanitise


class WordlessError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("text", "stored"),
    [("café 🦆", "café 🦆"), ("a\0b", "a\\0b"), ("caf\udce9", "caf?"), ("\ud83e and \udd86", "? and ?"), ("", "")],
)
def test_a_text_loses_only_what_nothing_can_hold(text: str, stored: str) -> None:
    assert sanitise(text) == stored
    assert sanitise(stored) == stored


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
    assert (format_message(error), format_error(error)) == (message, both)
    assert type(error).__name__ in format_traceback(error)
