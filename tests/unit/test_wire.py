"""What comes over a connection reaches its taker or the client library, whatever the pieces in which it comes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.commands import Channel as ChannelMethods
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from orchestrator.broker.arrivals import LINGER, Arrival, Arrivals
from orchestrator.broker.wire import METHOD, Wire, keep_wire

MINE, OTHER = 1, 2


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = [*sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def acks(channel: int, count: int) -> list[bytes]:
    return [frame.marshal(Basic.Ack(delivery_tag=one), channel) for one in range(1, count + 1)]


@given(
    order=st.lists(st.sampled_from([MINE, OTHER, 0]), max_size=30),
    places=st.lists(st.integers(0, 2000), max_size=20),
)
def test_each_frame_reaches_its_taker_or_the_library_in_order_however_it_is_cut(
    order: list[int], places: list[int]
) -> None:
    async def play() -> None:
        wire = Wire(asyncio.get_running_loop())
        taken: list[int] = []

        def take(kind: int, content: bytes) -> bool:
            assert kind == METHOD
            taken.append(struct.unpack(">Q", content[4:12])[0])
            return True

        wire.take(MINE, take)
        frames = [
            frame.marshal(Heartbeat(), 0) if channel == 0 else frame.marshal(Basic.Ack(delivery_tag=number), channel)
            for number, channel in enumerate(order)
        ]
        for piece in cut(b"".join(frames), places):
            wire.feed_data(piece)
        wire.feed_eof()
        assert taken == [number for number, channel in enumerate(order) if channel == MINE]
        rest = [one for one, channel in zip(frames, order, strict=True) if channel != MINE]
        passed = await wire.read()
        assert passed.removeprefix(frame.marshal(Heartbeat(), 0)) in {
            b"".join(rest),
            b"".join(rest).removeprefix(frame.marshal(Heartbeat(), 0)),
        }

    asyncio.run(play())


async def test_the_library_sees_a_sign_of_life_when_all_that_comes_is_taken() -> None:
    wire = Wire(asyncio.get_running_loop())
    wire.take(MINE, lambda _, __: True)
    wire.feed_data(b"".join(acks(MINE, 3)))
    assert await wire.readexactly(8) == frame.marshal(Heartbeat(), 0)


async def test_what_is_no_frame_or_only_a_part_of_one_is_left_to_the_library() -> None:
    wire = Wire(asyncio.get_running_loop())
    wire.take(MINE, lambda _, __: True)
    broken = acks(MINE, 1)[0][:-1] + b"x"
    wire.feed_data(broken + b"AMQP\x00\x00\x09\x01")
    wire.feed_eof()
    assert await wire.read() == broken + b"AMQP\x00\x00\x09\x01"


async def test_the_next_channel_of_the_same_number_is_not_given_to_the_taker_of_the_last_one() -> None:
    wire = Wire(asyncio.get_running_loop())
    taken = []

    def take(_: int, content: bytes) -> bool:
        taken.append(content)
        return not content.startswith(b"\x00\x14")

    wire.take(MINE, take)
    close = frame.marshal(ChannelMethods.Close(404, "no exchange", 60, 40), MINE)
    wire.feed_data(acks(MINE, 1)[0] + close + acks(MINE, 1)[0])
    wire.feed_eof()
    assert len(taken) == 2
    assert await wire.read() == close + acks(MINE, 1)[0]


class Bench:
    """The messages of a channel without a broker, and what is written about them."""

    def __init__(self, max_bytes: int = 1000, most: int = 1) -> None:
        self.loop = asyncio.get_running_loop()
        self.wire = Wire(self.loop)
        self.written: list[bytes] = []
        self.news = asyncio.Event()
        self.wire.transport = cast(
            "asyncio.WriteTransport", SimpleNamespace(write=self._write, is_closing=lambda: False)
        )
        self.channel: Any = SimpleNamespace(number=MINE, is_closed=False, connection=SimpleNamespace())
        keep_wire(self.channel.connection, self.wire)
        self.received: list[Arrival] = []
        self.arrivals = Arrivals(cast("Channel", self.channel), max_bytes, self.received.append, most=most)

    def _write(self, frames: bytes) -> None:
        self.written.append(frames)
        self.news.set()

    def deliver(self, tag: int, body: bytes, largest: int = 50) -> None:
        method = Basic.Deliver("tag of the consumer", tag, False, "an exchange", "a key")
        header = ContentHeader(body_size=len(body), properties=Basic.Properties(message_type="t"))
        bodies = [ContentBody(body[start : start + largest]) for start in range(0, len(body), largest)]
        frames = [
            frame.marshal(method, MINE),
            frame.marshal(header, MINE),
            *(frame.marshal(one, MINE) for one in bodies),
        ]
        self.wire.feed_data(b"".join(frames))

    async def settled(self) -> list[tuple[type[Frame], int, bool]]:
        await asyncio.sleep(0)
        data = b"".join(self.written)
        found: list[tuple[type[Frame], int, bool]] = []
        self.written.clear()
        while data:
            size, channel, method = frame.unmarshal(data)
            assert channel == MINE
            assert isinstance(method, Basic.Ack | Basic.Nack)
            found.append((type(method), method.delivery_tag or 0, bool(method.multiple)))
            data = data[size:]
        return found


@pytest.mark.parametrize(("size", "kept"), [(0, 0), (1, 1), (99, 99), (100, 100), (101, 100), (1000, 100)])
async def test_a_message_is_put_together_and_its_body_kept_as_far_as_it_may_be_long(size: int, kept: int) -> None:
    bench = Bench(max_bytes=100)
    bench.deliver(7, b"x" * size)
    [one] = bench.received
    assert (one.tag, one.exchange, one.routing_key, one.redelivered) == (7, "an exchange", "a key", False)
    assert one.body == b"x" * kept


async def test_acknowledgements_of_one_turn_are_one_frame_up_to_the_oldest_message_that_is_in_hand() -> None:
    bench = Bench()
    for tag in range(1, 9):
        bench.deliver(tag, b"body")
    for tag in (3, 1, 2, 5, 7):
        bench.arrivals.acknowledge(tag)
    assert sorted(await bench.settled(), key=lambda one: one[1]) == [
        (Basic.Ack, 3, True),
        (Basic.Ack, 5, False),
        (Basic.Ack, 7, False),
    ]
    bench.arrivals.acknowledge(6)
    assert await bench.settled() == [(Basic.Ack, 6, False)]
    bench.arrivals.acknowledge(4)
    bench.arrivals.acknowledge(8)
    assert await bench.settled() == [(Basic.Ack, 8, True)]


async def test_a_message_that_goes_back_to_its_queue_is_not_acknowledged_with_later_ones() -> None:
    bench = Bench()
    for tag in range(1, 5):
        bench.deliver(tag, b"body")
    bench.arrivals.acknowledge(1)
    bench.arrivals.acknowledge(4)
    bench.arrivals.requeue(2)
    bench.arrivals.acknowledge(3)
    assert await bench.settled() == [
        (Basic.Ack, 4, False),
        (Basic.Ack, 1, False),
        (Basic.Nack, 2, False),
        (Basic.Ack, 3, False),
    ]


async def test_acknowledgements_that_may_gather_go_out_after_a_moment_when_there_are_many_or_when_asked_for() -> None:
    bench = Bench(most=3)
    for tag in range(1, 9):
        bench.deliver(tag, b"body")
    bench.arrivals.acknowledge(1)
    assert await bench.settled() == []
    began = bench.loop.time()
    async with asyncio.timeout(30):
        await bench.news.wait()
    assert bench.loop.time() - began > LINGER / 2
    assert await bench.settled() == [(Basic.Ack, 1, False)]
    for tag in (2, 3, 4):
        bench.arrivals.acknowledge(tag)
    assert await bench.settled() == [(Basic.Ack, 4, True)], "so many are enough"
    bench.arrivals.acknowledge(5)
    bench.arrivals.flush()
    assert await bench.settled() == [(Basic.Ack, 5, False)], "the channel is about to be closed"
    bench.arrivals.acknowledge(6)
    bench.arrivals.requeue(7)
    assert await bench.settled() == [(Basic.Ack, 6, False), (Basic.Nack, 7, False)]


async def test_nothing_is_acknowledged_on_a_closed_channel() -> None:
    bench = Bench()
    for tag in (1, 2):
        bench.deliver(tag, b"body")
    bench.arrivals.acknowledge(1)
    bench.channel.is_closed = True
    with pytest.raises(ChannelInvalidStateError):
        bench.arrivals.acknowledge(2)
    assert await bench.settled() == []


async def test_what_is_written_in_one_turn_goes_out_in_order_and_in_two_writes_the_first_at_once() -> None:
    wire = Wire(asyncio.get_running_loop())
    written: list[bytes] = []
    is_closing = False
    transport = SimpleNamespace(write=written.append, is_closing=lambda: is_closing)
    wire.transport = cast("asyncio.WriteTransport", transport)

    wire.write(b"1")
    assert written == [b"1"]
    wire.write(b"2")
    wire.write(b"3")
    await asyncio.sleep(0)
    assert written == [b"1", b"23"]

    wire.write(b"4")
    await asyncio.sleep(0)
    wire.write(b"5")
    assert written == [b"1", b"23", b"4", b"5"]

    wire.write(b"6")
    is_closing = True
    await asyncio.sleep(0)
    assert written == [b"1", b"23", b"4", b"5"], "a transport that is closing takes nothing"
    wire.write(b"7")
    await asyncio.sleep(0)
    assert written == [b"1", b"23", b"4", b"5"], "nor when nothing gathers"
