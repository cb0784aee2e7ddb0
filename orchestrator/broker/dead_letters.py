"""Build and read dead letters, and rebuild the original message.

A dead letter keeps the sender's properties, headers and body, and adds the headers below. A message that the broker itself
dead-letters (expired, delivered too often) arrives without these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final
from uuid import UUID, uuid4

from pamqp import decode, encode

from orchestrator.broker.incoming import MAX_HEADER, Delivery
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.topology import FIXED_QUEUES, Exchanges, Queues, step_queue
from orchestrator.messages import DeadLetter
from orchestrator.text import sanitise
from orchestrator.types import JSON

REASON, QUEUE, EXCHANGE, ROUTING_KEY = "x-reason", "x-queue", "x-exchange", "x-routing-key"
LETTER_ID, DIED_AT, TOKEN_HASH = "x-dead-letter-id", "x-died-at", "x-token-sha256"
USER_ID, EXPIRATION, SHORTENED = "x-user-id", "x-expiration", "x-shortened"
WHOLE_SIZE: Final = "x-whole-size"
"""A header of a letter with only the beginning of a body: the size of the whole body in bytes."""

REPLAY_OF: Final = "x-replay-of"
"""A header of a replayed message: the id of its dead letter."""

_OURS = frozenset(
    {REASON, QUEUE, EXCHANGE, ROUTING_KEY, LETTER_ID, DIED_AT, TOKEN_HASH, USER_ID, EXPIRATION, SHORTENED, WHOLE_SIZE}
)
_BROKERS = frozenset(
    f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")
) | {"x-death"}
"""Headers that identify a letter of the broker. Programs never publish them, so a sender cannot imitate them."""

_DROPPED = _BROKERS | {"CC", "BCC", "x-delivery-count", "x-acquired-count"}
"""Headers that are removed: for CC and BCC the broker would copy the message to more queues; the others are its own."""

_KEPT = ("app_id", "content_encoding", "content_type", "message_id", "priority", "reply_to", "timestamp")
"""The properties of a letter that are those of the original. The broker refuses a user_id that is not the publisher's, and an
expiration would make the letter expire; the type and the correlation id are fields of every message of ours."""

MAX_HEADERS = 110_000
"""The most bytes of a sender's headers that are kept unchanged. They share one frame of 128 KiB with the added ones."""

_CAME_BACK = "delivery_limit"
_WORDS = {
    "expired": "it was not read in time (expired in {queue})",
    _CAME_BACK: "it came back to {queue} too often: a program dies or loses its connection while it handles it",
    "maxlen": "{queue} was full",
    "rejected": "a reader of {queue} rejected it",
}


def dead_letter(delivery: Delivery, reason: str) -> Outgoing:
    """Build the dead letter for a delivery that cannot be processed.

    A callback's correlation id is its token, which readers of the letter must not see: its SHA-256 replaces it.
    """
    sent = delivery.properties
    is_callback = delivery.queue == Queues.CALLBACKS
    headers, shortened = _fit(_encodable(sent.get("headers") or {}))
    ours: dict[str, Any] = {
        REASON: sanitise(reason)[:MAX_HEADER],
        QUEUE: delivery.queue,
        EXCHANGE: delivery.exchange,
        ROUTING_KEY: delivery.routing_key,
        LETTER_ID: uuid4().hex,
        DIED_AT: datetime.now(UTC).isoformat(),
        USER_ID: sent.get("user_id"),
        EXPIRATION: sent.get("expiration"),
        TOKEN_HASH: _hash(delivery.correlation_id) if is_callback and delivery.correlation_id else None,
        SHORTENED: ", ".join(shortened)[:MAX_HEADER] or None,
        WHOLE_SIZE: delivery.whole_size,
    }
    return Outgoing(
        Exchanges.DEAD,
        "",
        delivery.type or "",
        delivery.body,
        None if is_callback else delivery.correlation_id,
        headers | {name: value for name, value in ours.items() if value is not None},
        properties={name: sent[name] for name in _KEPT if name in sent},
    )


def read_letter(delivery: Delivery) -> DeadLetter:
    """Read a message from the queue of dead letters, from a program or from the broker."""
    headers: Mapping[str, Any] = delivery.properties.get("headers") or {}
    if _BROKERS.isdisjoint(headers):
        return _read_ours(delivery, headers)
    return _read_brokers(delivery, headers)


def copy(letter: DeadLetter) -> Outgoing:
    """Build the copy of a letter for the queue ``orchestrator.dead``, which people read."""
    headers = decode.field_table(letter.packed_headers)[1] if letter.packed_headers else {}
    about = {
        REASON: letter.reason[:MAX_HEADER],
        QUEUE: letter.queue,
        EXCHANGE: letter.exchange,
        ROUTING_KEY: letter.routing_key,
        LETTER_ID: None if letter.letter_id is None else letter.letter_id.hex,
        DIED_AT: None if letter.died_at is None else letter.died_at.isoformat(),
        USER_ID: letter.properties.get("user_id"),
        EXPIRATION: letter.properties.get("expiration"),
        WHOLE_SIZE: letter.properties.get("whole_size"),
    }
    message = _rebuild(letter, {**_encodable(headers), **{name: value for name, value in about.items() if value}})
    return replace(message, exchange="", routing_key=Queues.DEAD.value)


def is_replayable(letter: DeadLetter) -> bool:
    """Return whether a letter came from one of the engine's queues, over an exchange and routing key that lead there."""
    if letter.exchange:
        return _is_ours(letter.exchange)
    is_queue = letter.queue in set(Queues) - {Queues.LETTERS, Queues.DEAD} or letter.queue.startswith(step_queue(""))
    return is_queue and letter.routing_key == letter.queue


def original(letter: DeadLetter, letter_id: UUID) -> Outgoing:
    """Rebuild the message of a dead letter, for its original exchange and routing key.

    One without a message id gets the letter's, so that its reader recognizes a second replay. The sender's user id cannot be
    kept.
    """
    headers = decode.field_table(letter.packed_headers)[1] if letter.packed_headers else {}
    message = _rebuild(letter, {**_encodable(headers), REPLAY_OF: str(letter_id)})
    return replace(message, properties={"message_id": str(letter_id), **message.properties})


def again(delivery: Delivery) -> Outgoing | None:
    """Build the same message for the end of its queue; ``None`` if it could not be republished unchanged.

    The broker refuses a user id that is not the publisher's, and would restart an expiration. A foreign exchange may have other
    queues, and the headers may leave no room in a frame.
    """
    sent = delivery.properties
    if delivery.unreadable is not None or "user_id" in sent or "expiration" in sent or not _is_ours(delivery.exchange):
        return None
    headers, shortened = _fit(_encodable(sent.get("headers") or {}))
    if shortened:
        return None
    return Outgoing(
        delivery.exchange,
        delivery.routing_key,
        delivery.type or "",
        delivery.body,
        delivery.correlation_id,
        headers,
        properties={name: sent[name] for name in _KEPT if name in sent},
    )


def find_replayed(delivery: Delivery) -> UUID | None:
    """Return the id of the dead letter of which this message is a replay; ``None`` for an original message."""
    headers = delivery.properties.get("headers") or {}
    try:
        return UUID(headers[REPLAY_OF])
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _is_ours(exchange: str) -> bool:
    """Return whether messages may be republished to an exchange: one of the engine's, other than that of dead letters."""
    return exchange in set(Exchanges) - {Exchanges.DEAD}


def _rebuild(letter: DeadLetter, headers: Mapping[str, Any]) -> Outgoing:
    properties: dict[str, Any] = {name: letter.properties[name] for name in _KEPT if name in letter.properties}
    if (sent := properties.pop("timestamp", None)) is not None:
        properties["timestamp"] = datetime.fromisoformat(sent)
    return Outgoing(
        letter.exchange,
        letter.routing_key,
        letter.properties.get("type", ""),
        letter.body,
        letter.properties.get("correlation_id"),
        headers,
        properties=properties,
    )


def _read_ours(delivery: Delivery, headers: Mapping[str, Any]) -> DeadLetter:
    properties = dict(delivery.properties) | {
        "user_id": headers.get(USER_ID),
        "expiration": headers.get(EXPIRATION),
        "whole_size": headers.get(WHOLE_SIZE),
    }
    token = headers.get(TOKEN_HASH)
    died_at = None
    with suppress(KeyError, ValueError, TypeError):
        died_at = datetime.fromisoformat(headers[DIED_AT])
    letter_id = None
    with suppress(KeyError, ValueError, TypeError, AttributeError):
        letter_id = UUID(headers[LETTER_ID])
    return _letter(
        delivery,
        properties,
        {name: value for name, value in headers.items() if name not in _OURS},
        letter_id=letter_id,
        reason=str(headers.get(REASON, "")),
        died_at=died_at,
        queue=str(headers.get(QUEUE, "")),
        exchange=str(headers.get(EXCHANGE, "")),
        routing_key=str(headers.get(ROUTING_KEY, "")),
        token_hash=bytes.fromhex(token) if isinstance(token, str) else None,
    )


def _read_brokers(delivery: Delivery, headers: Mapping[str, Any]) -> DeadLetter:
    # A sender can forge entries of x-death. The routing key is the one by which the message came into its queue, and identifies
    # the queue.
    source = next((one for one in FIXED_QUEUES if delivery.routing_key in (*one.keys, one.name)), None)
    queue = "" if source is None else source.name
    is_callback = queue == Queues.CALLBACKS
    deaths = headers.get("x-death")
    newest = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    died_at = newest.get("time")
    why = str(newest.get("reason", "for a reason that it does not say"))
    words = _WORDS.get(why, f"reason: {why}").format(queue=queue)
    properties = dict(delivery.properties) | {"whole_size": delivery.whole_size}
    token = properties.pop("correlation_id", None) if is_callback else None
    expiration = newest.get("original-expiration")
    return _letter(
        delivery,
        properties if expiration is None else properties | {"expiration": expiration},
        {name: value for name, value in headers.items() if name not in _DROPPED},
        letter_id=None,
        reason=f"the broker has given the message up: {words}",
        died_at=died_at if isinstance(died_at, datetime) else None,
        queue=queue,
        exchange="" if source is None or delivery.routing_key == source.name else source.exchange.value,
        routing_key=delivery.routing_key,
        token_hash=bytes.fromhex(_hash(token)) if token else None,
        unhandled=source is not None and why == _CAME_BACK,
    )


def _letter(
    delivery: Delivery,
    properties: Mapping[str, Any],
    headers: Mapping[str, Any],
    *,
    letter_id: UUID | None,
    reason: str,
    died_at: datetime | None,
    queue: str,
    exchange: str,
    routing_key: str,
    token_hash: bytes | None,
    unhandled: bool = False,
) -> DeadLetter:
    packed = encode.field_table(_encodable(headers)) if headers else None
    names = {name: name for name in properties} | {"message_type": "type"}
    shown = {
        names[name]: to_json(value)
        for name, value in properties.items()
        if value is not None and name not in {"headers", "delivery_mode", "cluster_id"}
    }
    seen = repr((exchange, routing_key, sorted(shown.items()), packed, died_at)).encode()
    return DeadLetter(
        letter_id=letter_id,
        reason=reason,
        died_at=died_at,
        queue=sanitise(queue),
        exchange=exchange,
        routing_key=sanitise(routing_key),
        properties=shown | ({"headers": to_json(headers)} if headers else {}),
        packed_headers=packed,
        body=delivery.body,
        token_hash=token_hash,
        digest=sha256(seen + delivery.body).digest(),
        unhandled=unhandled,
    )


def to_json(value: Any) -> JSON:
    """Return a property or header as JSON: times as ISO 8601, and other values that JSON lacks as text."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return sanitise(value)
        case float():
            # JSON has neither infinity nor NaN.
            return value if value - value == 0 else str(value)
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        case bytes() | bytearray():
            return sanitise(bytes(value).decode("utf-8", "backslashreplace"))
        case list() | tuple():
            return [to_json(one) for one in value]
        case dict():
            return {sanitise(str(name)): to_json(one) for name, one in value.items()}
    return sanitise(str(value))


def _hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _fit(headers: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return headers that fit into a frame, and the names of those that were cut or left out, the largest first."""
    changed = []
    by_size = sorted(((len(encode.field_table({name: value})), name) for name, value in headers.items()), reverse=True)
    size = sum(size for size, _ in by_size)
    for length, name in by_size:
        if size <= MAX_HEADERS:
            break
        size -= length
        value = headers.pop(name)
        if length > 4 * MAX_HEADER:
            headers[name] = str(to_json(value))[:MAX_HEADER]
            size += len(encode.field_table({name: headers[name]}))
        changed.append(name)
    return headers, changed


def _encodable(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers that the client library can write; it reads more than it writes."""
    return dict(_each(headers))


def _each(headers: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in headers.items():
        if name in _DROPPED:
            continue
        changed = _change(value)
        try:
            encode.field_table({name: changed})
        except (TypeError, ValueError, OverflowError, UnicodeError):
            changed = str(to_json(value))
        yield name, changed


def _change(value: Any) -> Any:
    match value:
        case bytes():
            return bytearray(value)
        case list():
            return [_change(one) for one in value]
        case dict():
            return {name: _change(one) for name, one in value.items()}
        case Decimal() if not value.is_finite():
            return str(value)
    return value
