"""The bytes of a published message are those of the client library."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from orchestrator.broker.frames import (
    ACK,
    DELIVER,
    NACK,
    RETURN,
    build_properties,
    encode_frames,
    read_body_size,
    read_deliver,
    read_message_id,
    read_properties,
    read_tag,
    settle_frame,
)
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.topology import Exchanges

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def library(message: Outgoing, message_id: str, channel: int, largest: int) -> bytes:
    method = Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=message.mandatory)
    header = ContentHeader(body_size=len(message.body), properties=build_properties(message, message_id))
    pieces = [message.body[start : start + largest] for start in range(0, len(message.body), largest)]
    frames = [frame.marshal(method, channel), frame.marshal(header, channel)]
    return b"".join([*frames, *(frame.marshal(ContentBody(piece), channel) for piece in pieces)])


messages = st.builds(
    Outgoing,
    exchange=st.sampled_from(Exchanges).map(str) | st.just(""),
    routing_key=text,
    type=text,
    body=st.binary(max_size=300),
    correlation_id=st.none() | text,
    headers=st.dictionaries(text, text | st.integers(-1000, 1000) | st.booleans(), max_size=4),
    mandatory=st.booleans(),
    properties=st.fixed_dictionaries(
        {},
        optional={
            "priority": st.integers(0, 9),
            "reply_to": text,
            "content_type": text,
            "content_encoding": text,
            "expiration": text,
            "user_id": text,
            "app_id": text,
            "timestamp": st.just(datetime(2026, 1, 1, tzinfo=UTC)),
        },
    ),
)


@given(
    message=messages,
    message_id=text,
    channel=st.integers(1, 2047),
    largest=st.integers(1, 100),
)
def test_frames_are_those_of_the_client_library(message: Outgoing, message_id: str, channel: int, largest: int) -> None:
    assert encode_frames(message, message_id, channel, largest) == library(message, message_id, channel, largest)


@pytest.mark.parametrize("wrong", [{"routing_key": "k" * 256}, {"routing_key": "é" * 128}, {"type": "t" * 256}])
def test_what_does_not_fit_into_a_short_string_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"too long|range"):
        encode_frames(Outgoing(**{"exchange": "e", "routing_key": "k", "type": "t", "body": b""} | wrong), "id", 1, 100)


@given(message=messages, message_id=text)
def test_the_properties_that_are_read_are_those_that_the_client_library_reads(
    message: Outgoing, message_id: str
) -> None:
    header = bytes(ContentHeader(0, len(message.body), build_properties(message, message_id)).marshal())
    read = ContentHeader()
    read.unmarshal(header)
    values = {name: getattr(read.properties, name) for name in read.properties.flags}
    expected = {name: value for name, value in values.items() if value not in (None, "")}
    found = read_properties(header)
    if found is not None:
        assert found == expected
    is_text = all(type(one) is str for one in message.headers.values())
    assert (found is not None) == (is_text and "timestamp" not in message.properties)
    assert read_message_id(header) == message_id
    assert read_body_size(header) == len(message.body)


@given(header=st.binary(max_size=60), flags=st.integers(0, 2**16 - 1))
def test_properties_that_make_no_sense_are_left_to_the_library(header: bytes, flags: int) -> None:
    read_properties(bytes(12) + flags.to_bytes(2, "big") + header)


@given(
    tag=st.integers(1, 2**63), multiple=st.booleans(), channel=st.integers(1, 2047), key=text, redelivered=st.booleans()
)
def test_methods_are_read_and_written_as_by_the_client_library(
    tag: int, multiple: bool, channel: int, key: str, redelivered: bool
) -> None:
    assert settle_frame(channel, tag, multiple=multiple) == frame.marshal(Basic.Ack(tag, multiple), channel)
    assert settle_frame(channel, tag, requeue=True) == frame.marshal(Basic.Nack(tag, False, True), channel)
    for method, begin in ((Basic.Ack(tag, multiple), ACK), (Basic.Nack(tag, multiple, True), NACK)):
        content = frame.marshal(method, channel)[7:-1]
        assert content.startswith(begin)
        assert read_tag(content) == (tag, multiple)
    content = frame.marshal(Basic.Deliver("a consumer", tag, redelivered, "exchange", key), channel)[7:-1]
    assert content.startswith(DELIVER)
    assert read_deliver(content) == (tag, redelivered, "exchange", key)
    assert frame.marshal(Basic.Return(312, "NO_ROUTE", "", key), channel)[7:].startswith(RETURN)
