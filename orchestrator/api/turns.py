"""Bound how many requests one user has in progress in one program, so that one impatient client does not keep out the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException

RETRY_AFTER: Final = "1"
"""Seconds after which another of the user's requests has probably ended."""


class Turns:
    """Counts the requests of each user.

    Args:
        most: of one user at once; 0 for any number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, user: str) -> Iterator[None]:
        """Count a request while the block runs.

        Raises:
            HTTPException: 429, the user has too many already.
        """
        if self._most and self._taken[user] >= self._most:
            text = f"{user!r} has {self._most} requests in progress already: send fewer at once (ORCHESTRATOR_REQUESTS_PER_USER)"
            raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, text, {"retry-after": RETRY_AFTER})
        self._taken[user] += 1
        try:
            yield
        finally:
            self._taken[user] -= 1
            if not self._taken[user]:
                del self._taken[user]
