"""Find the deadly steps among suspects by bisection. Pure: it decides which suspects are tested together, and runs nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

LARGEST_GROUP = 100
"""The most suspects that are tested together: all begin again when one is deadly, and a test begins when a group is full."""


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """Suspects that are tested together.

    Args:
        depth: how often their original group was halved.
        outlived: the seconds that their last test took, which was deadly; ``None`` when they have not been tested yet.
    """

    members: tuple[T, ...]
    depth: int = 0
    outlived: float | None = None


class Halving(Generic[T]):
    """The suspects that wait for a test.

    Those that arrive while nothing can be tested form one group, or several when they are many. A group whose test was deadly is
    halved, until the deadly suspect is alone. It is found after a number of tests that is the logarithm of the group's size.
    """

    def __init__(self) -> None:
        self._groups: deque[Group[T]] = deque()
        self._arrived: dict[T, None] = {}

    def __len__(self) -> int:
        """Return how many groups wait."""
        return len(self._groups) + ceil(len(self._arrived) / LARGEST_GROUP)

    @property
    def arrived(self) -> int:
        """The number of suspects that have not been tested yet."""
        return len(self._arrived)

    @property
    def has_only_arrived(self) -> bool:
        """Whether only suspects wait that have not been tested yet."""
        return not self._groups

    def add(self, suspect: T) -> None:
        """Add a suspect that may be tested together with others."""
        self._arrived[suspect] = None

    def add_alone(self, suspect: T) -> None:
        """Add a suspect that must be tested alone, because its last test alone was deadly."""
        self._groups.append(Group((suspect,)))

    def discard(self, suspect: T) -> bool:
        """Remove a suspect; return whether it was waiting."""
        if suspect in self._arrived:
            del self._arrived[suspect]
            return True
        for number, group in enumerate(self._groups):
            if suspect in group.members:
                left = tuple(one for one in group.members if one != suspect)
                if left:
                    self._groups[number] = Group(left, group.depth, group.outlived)
                else:
                    del self._groups[number]
                return True
        return False

    def take(self) -> Group[T] | None:
        """Return the next group to test: halves of a deadly group before suspects that have arrived since."""
        if self._groups:
            return self._groups.popleft()
        if not self._arrived:
            return None
        group = Group(tuple(islice(self._arrived, LARGEST_GROUP)))
        for suspect in group.members:
            del self._arrived[suspect]
        return group

    def halve(self, group: Group[T], suspects: Sequence[T], took: float) -> None:
        """Split a group whose test was deadly.

        Args:
            suspects: the members whose step had not ended.
            took: seconds from the beginning of the test to the death.
        """
        middle = (len(suspects) + 1) // 2
        for half in (suspects[middle:], suspects[:middle]):
            if half:
                self._groups.appendleft(Group(tuple(half), group.depth + 1, took))
