"""Reply to the senders of commands and queries, in messages that every broker accepts."""

from __future__ import annotations

import structlog

from orchestrator.broker.incoming import Delivery
from orchestrator.broker.outgoing import reply
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import is_of_engine
from orchestrator.errors import (
    FormIncompleteError,
    MessageError,
    OrchestratorError,
    PublishError,
    RefusedError,
    RequestError,
    UnroutableError,
)
from orchestrator.messages import Message, MessageType, Refused, encode
from orchestrator.text import MAX_SHORT, bound_reasons, cut, sanitise

logger = structlog.get_logger(__name__)

MAX_REPLY = 1024 * 1024
"""The most bytes of a reply, as the deployed broker accepts them."""

_LARGE = 8 * 1024
"""Bytes of a reply that a broker may refuse for its size."""


def build_refusal(error: OrchestratorError) -> Refused:
    """Build the reply to a refused message."""
    return Refused(
        error=type(error).__name__,
        detail=sanitise(str(error)),
        reasons=bound_reasons(error.reasons) if isinstance(error, RequestError) else [],
        form=error.form if isinstance(error, FormIncompleteError) else None,
    )


def check_reply_to(delivery: Delivery) -> None:
    """Check that a reply would go to a queue of its sender.

    Raises:
        MessageError: it would go to a queue of the engine.
    """
    if delivery.reply_to is not None and is_of_engine(delivery.reply_to):
        raise MessageError("reply_to names a queue of the engine: name a queue of your own")


class Replies:
    """Sends replies.

    Args:
        max_bytes: of a reply. A larger one is replaced by a small refusal, and so is one that the broker refuses.
    """

    def __init__(self, publisher: Publisher, max_bytes: int) -> None:
        self._publisher = publisher
        self._max_bytes = max_bytes

    async def send(self, delivery: Delivery, kind: MessageType, answer: Message | bytes) -> bool:
        """Reply to a message if its sender has named a queue, and return whether the broker has accepted the reply."""
        if not delivery.reply_to or is_of_engine(delivery.reply_to):
            return False
        body = answer if isinstance(answer, bytes) else encode(answer)
        message = reply(delivery.reply_to, delivery.correlation_id, kind, body)
        try:
            if len(body) <= self._max_bytes:
                try:
                    await self._publisher.publish(message)
                except RefusedError:
                    if len(body) <= _LARGE:
                        raise
                else:
                    return True
            logger.warning("reply too large", type=kind.value, bytes=len(body), max_bytes=self._max_bytes)
            small = encode(_shrink(answer, len(body)))
            await self._publisher.publish(reply(delivery.reply_to, delivery.correlation_id, MessageType.REFUSED, small))
        except UnroutableError:
            logger.warning("reply queue does not exist", type=kind.value)
            return False
        except PublishError as error:
            logger.warning("reply not published", type=kind.value, error=str(error))
            return False
        return True


def _shrink(answer: Message | bytes, size: int) -> Refused:
    """Return a small refusal in place of a reply that is too large."""
    what = f"the reply has {size:,} bytes, which is more than a message may have"
    if not isinstance(answer, Refused):
        return Refused(error="InvalidInputError", detail=what, reasons=[])
    reasons = [{"key": one["key"]} for one in answer.reasons[:1] if "key" in one]
    return Refused(error=answer.error, detail=f"{cut(answer.detail, MAX_SHORT)} ({what})", reasons=reasons)
