"""Read messages, even when their properties are malformed.

RabbitMQ forwards properties unchecked. The client library treats one byte that is not UTF-8, or a time beyond the calendar, as
a broken connection: the broker would deliver the message again and again, and one sender would block all messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiormq import spec
from pamqp.base import BasicProperties
from pamqp.header import ContentHeader

from orchestrator.broker.arrivals import Arrival
from orchestrator.broker.frames import read_body_size, read_properties

MAX_HEADER = 1000
"""The most characters of a header that are kept. All headers share one frame, and a larger one closes the connection."""

_unmarshal: Final = BasicProperties.unmarshal
_UNREADABLE = "orchestrator_unreadable"


# Not frozen: setting thirteen fields of a frozen one takes as long as reading the properties.
@dataclass(slots=True)
class Delivery:
    """A message as a handler sees it; immutable.

    Args:
        unreadable: describes the properties that could not be read; these are ``None``.
        trace: the headers ``workflow`` and ``step``, as far as the sender has set them.
        exchange: the exchange to which it was published.
        properties: those that its sender has set, by the client library's names; headers are under ``headers``.
        whole_size: the size of the body in bytes, when ``body`` is only its beginning.
    """

    queue: str
    body: bytes
    type: str | None
    routing_key: str
    message_id: str | None
    correlation_id: str | None
    reply_to: str | None
    redelivered: bool
    unreadable: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    exchange: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    whole_size: int | None = None


def read_delivery(queue: str, arrival: Arrival) -> Delivery:
    """Read a message that has arrived."""
    size = read_body_size(arrival.header)
    properties, unreadable = read_properties(arrival.header), None
    if properties is None:
        properties, unreadable = _read_patiently(arrival.header)
    headers = properties.get("headers") or {}
    return Delivery(
        queue=queue,
        body=arrival.body,
        type=properties.get("message_type"),
        routing_key=arrival.routing_key,
        message_id=properties.get("message_id"),
        correlation_id=properties.get("correlation_id"),
        reply_to=properties.get("reply_to"),
        redelivered=arrival.redelivered,
        unreadable=unreadable,
        trace={
            name: value[:MAX_HEADER] for name in ("workflow", "step") if isinstance(value := headers.get(name), str)
        },
        exchange=arrival.exchange,
        properties=properties,
        whole_size=size if size > len(arrival.body) else None,
    )


def _read_patiently(header: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the properties as the client library reads them, and which of them it cannot read."""
    read = ContentHeader()
    read.unmarshal(header)
    found = read.properties
    values = {name: value for name in found.flags if (value := getattr(found, name)) not in (None, "")}
    return values, getattr(found, _UNREADABLE, None)


def tolerate_unreadable_properties() -> None:
    """Make the client library keep what it could read of a message's properties and continue.

    It offers no other place to intervene, so this changes the library's class.
    """
    spec.Basic.Properties.unmarshal = _unmarshal_tolerantly  # type: ignore[assignment, method-assign]


def _unmarshal_tolerantly(properties: BasicProperties, flags: int, data: bytes) -> None:
    try:
        _unmarshal(properties, flags, data)
    except Exception as error:  # whatever the library's decoders raise, which depends on the type
        # The properties are read in a fixed order: the first one that was sent and has no value is the unreadable one.
        missing = (
            name for name, flag in properties.flags.items() if flags & flag and getattr(properties, name) is None
        )
        name = next(missing, "cluster_id")
        text = f"the message's property {name!r} cannot be read, nor those that follow it: {error}"
        setattr(properties, _UNREADABLE, text)
