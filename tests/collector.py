"""The settings of Python's garbage collector, which programs change for their whole process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_as_before() -> Iterator[None]:
    """Undo, at the end, what a program in this process has set: otherwise nothing that was there by then is ever collected."""
    before = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
