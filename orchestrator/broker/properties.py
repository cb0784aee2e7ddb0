"""Reading messages' properties whatever their senders have written into them.

RabbitMQ passes on whatever properties it is sent. The client library takes one byte that is no UTF-8, or a time beyond all
calendars, for a broken connection: the broker would deliver the message again and again,
and one sender would stop everybody's messages.
"""

from __future__ import annotations

from typing import Final

import structlog
from aiormq import spec
from pamqp.base import BasicProperties

logger = structlog.get_logger(__name__)

_read: Final = BasicProperties.unmarshal
_UNREADABLE = "orchestrator_unreadable"


def tolerate_unreadable() -> None:
    """Have the client library go on with what it could read of a message's properties.

    There is no other place to step in, so this changes the library's class.
    """
    spec.Basic.Properties.unmarshal = _read_tolerantly  # type: ignore[assignment, method-assign]


def unreadable(properties: BasicProperties) -> str | None:
    """What could not be read, in words."""
    found: str | None = getattr(properties, _UNREADABLE, None)
    return found


def _read_tolerantly(properties: BasicProperties, flags: int, data: bytes) -> None:
    try:
        _read(properties, flags, data)
    except Exception as error:  # whatever the library's decoders raise, which depends on the type
        # They are read in a fixed order: the first that was sent and is not there is the one.
        missing = (
            name for name, flag in properties.flags.items() if flags & flag and getattr(properties, name) is None
        )
        words = (
            f"the message's property {next(missing, 'cluster_id')!r} cannot be read, nor those that follow it: {error}"
        )
        setattr(properties, _UNREADABLE, words)
