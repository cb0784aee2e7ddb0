"""Make dataclasses that are frozen for the type checker only, because each step creates several of them.

A frozen dataclass sets each of its fields by a call that goes around its own guard, which takes three times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from collections.abc import Callable
    from dataclasses import dataclass

    def value(*, frozen: bool, slots: bool) -> Callable[[type], type]:
        """Make a dataclass with the hash of a frozen one; only the type checker prevents changes of its fields."""
        return dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["value"]
