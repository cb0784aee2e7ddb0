"""The demo's own error."""

from __future__ import annotations


class DemoError(Exception):
    """Something is not as it should be; the text says what, to a person."""
