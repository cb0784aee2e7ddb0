"""Remember targets that refuse messages: they are tried and reported rarely, until one is accepted again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from orchestrator.broker.outgoing import Outgoing

logger = structlog.get_logger(__name__)

SHORTEST, LONGEST = 0.5, 10.0
"""Seconds without a try after a refusal; each time twice as long as before."""

FIRST_REPORT, RAREST_REPORT = 10.0, 600.0
"""Seconds until the next log line about a target that goes on refusing; each time twice as long as before."""

CALM = 10.0
"""Seconds without a refusal after which a target that accepts messages is forgotten."""

REMEMBERED = 1000
"""The most targets that are remembered."""

Target = tuple[str, str]
"""An exchange and a routing key; the default exchange is one target for all keys, because other services choose these."""


@dataclass(slots=True)
class _Refusing:
    report_at: float
    refused_at: float
    error: str = ""
    is_isolated: bool = False
    pause: float = 0.0
    until: float = 0.0
    report_after: float = FIRST_REPORT
    unreported: int = 0


class Targets:
    """The targets whose newest message the broker has refused, and why."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._refusing: dict[Target, _Refusing] = {}
        self._clock = clock

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._refusing)

    def find_refusal(self, message: Outgoing) -> str | None:
        """Return why a message should not be tried now; ``None`` when it may be."""
        if not self._refusing:
            return None
        found = self._refusing.get(_target_of(message))
        if found is None or found.until <= self._clock():
            return None
        self._report(message, found)
        return found.error

    def is_isolated(self, message: Outgoing) -> bool:
        """Return whether a message needs a channel of its own."""
        found = self._refusing.get(_target_of(message))
        return found is not None and found.is_isolated

    def refuse(self, message: Outgoing, error: str, *, pauses: bool = True) -> None:
        """Record a refusal; if it ``pauses``, do not try the target for a while."""
        found = self._remember(message)
        found.error, found.refused_at = error, self._clock()
        if pauses:
            found.pause = min(max(2 * found.pause, SHORTEST), LONGEST)
            found.until = self._clock() + found.pause
        self._report(message, found)

    def isolate(self, message: Outgoing) -> None:
        """Record that messages to a target need a channel of their own, because one closed the channel or refusals go on."""
        self._remember(message).is_isolated = True

    def accept(self, message: Outgoing) -> bool:
        """Record that a target accepts messages; return whether it has recovered, and not refused any for a while.

        A full queue accepts some messages and refuses others.
        """
        if not self._refusing:
            return False
        target = _target_of(message)
        found = self._refusing.get(target)
        if found is None:
            return False
        found.pause = found.until = 0.0
        if self._clock() < found.refused_at + CALM:
            return False
        del self._refusing[target]
        if found.error:
            logger.warning(
                "messages are taken again",
                exchange=message.exchange,
                routing_key=message.routing_key,
                refused=found.unreported,
            )
        return True

    def _remember(self, message: Outgoing) -> _Refusing:
        target = _target_of(message)
        found = self._refusing.pop(target, None) or _Refusing(self._clock(), self._clock())
        self._refusing[target] = found
        if len(self._refusing) > REMEMBERED:
            del self._refusing[next(iter(self._refusing))]
        return found

    def _report(self, message: Outgoing, found: _Refusing) -> None:
        found.unreported += 1
        now = self._clock()
        if now < found.report_at:
            return
        logger.warning(
            "messages are refused; others go on, and these are tried again",
            exchange=message.exchange,
            routing_key=message.routing_key,
            type=message.type,
            refused=found.unreported,
            error=found.error,
        )
        found.unreported = 0
        found.report_at = now + found.report_after
        found.report_after = min(2 * found.report_after, RAREST_REPORT)


def _target_of(message: Outgoing) -> Target:
    return (message.exchange, message.routing_key if message.exchange else "")
