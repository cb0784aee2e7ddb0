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

from orchestrator.broker.frames import build_properties, encode_frames
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.topology import Exchanges

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def library(message: Outgoing, message_id: str, channel: int, largest: int) -> bytes:
    method = Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=message.mandatory)
    header = ContentHeader(body_size=len(message.body), properties=build_properties(message, message_id))
    pieces = [message.body[start : start + largest] for start in range(0, len(message.body), largest)]
    frames = [frame.marshal(method, channel), frame.marshal(header, channel)]
    return b"".join([*frames, *(frame.marshal(ContentBody(piece), channel) for piece in pieces)])


@given(
    message=st.builds(
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
                "timestamp": st.just(datetime(2026, 1, 1, tzinfo=UTC)),
            },
        ),
    ),
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
