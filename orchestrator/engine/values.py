"""Values of which each step makes several: frozen for the type checker, and as quick to make as what is not frozen.

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
        """Make a dataclass with the hash of a frozen one; that nobody changes it is for the type checker to see."""
        return dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["value"]
