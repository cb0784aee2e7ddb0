"""Decide when something that failed is tried again. The waits are tenacity's strategies; the engine counts the tries.

Between two tries of a step nothing waits in memory: the delay becomes the process's ``due_at`` in the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import tenacity
from tenacity.wait import wait_base


def _default_wait() -> wait_base:
    # 1 s, 2 s, 4 s … up to 10 minutes, each with up to 1 s of jitter so that a thousand processes which failed together
    # do not all come back together.
    return tenacity.wait_exponential_jitter(initial=1, max=600, jitter=1)


MAX_DELAY = 10 * 365 * 86_400.0
"""Seconds between two tries, and of a step's timeout, at most: more is not meant, and the database cannot add it to its time."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long apart a failed step is tried again by itself.

    Args:
        wait: any tenacity wait strategy, in seconds; it sees the number of tries so far as ``attempt_number``.
        limit: how many tries in all; ``None`` for no limit. When it is reached the process is FAILED.
    """

    wait: wait_base = field(default_factory=_default_wait)
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"a retry limit counts all tries and is at least 1, not {self.limit}")

    def delay(self, failures: int) -> float | None:
        """Seconds until the next try after ``failures`` failed ones (1 for the first), or ``None`` at the limit."""
        if self.limit is not None and failures >= self.limit:
            return None
        return min(backoff(self.wait, failures), MAX_DELAY)


SERVER_AWAY: wait_base = tenacity.wait_random_exponential(multiplier=0.5, max=5)
"""Between two tries to reach a server. Many programs lose it at the same moment; the jitter keeps them apart."""


def backoff(wait: wait_base, tries: int) -> float:
    """Seconds to wait after ``tries`` failed ones (1 for the first)."""
    call = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    call.attempt_number = tries
    return max(0.0, float(wait(call)))
