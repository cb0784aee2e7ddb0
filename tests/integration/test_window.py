"""Messages that are published in the same moment share a write and keep their order, and none has the fate of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace

import aio_pika
import pytest
from aiormq.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity, DeliveryError

from orchestrator.broker.connection import BrokerAddress, connect, raw_channel
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.window import Window
from orchestrator.broker.wire import wire_of
from tests.integration.waiting import until

TO_MINE = Outgoing("", "mine", "some.type", b"{}", "a process", {"workflow": "w", "traceparent": "t"})


@pytest.fixture
async def connection(amqp_url: str) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    async with await connect(BrokerAddress(amqp_url, "test", 60), "test") as connection:
        yield connection


@pytest.fixture
async def channel(connection: aio_pika.abc.AbstractConnection) -> aio_pika.abc.AbstractChannel:
    channel = await connection.channel(publisher_confirms=True)
    await channel.declare_queue("mine", arguments={"x-max-length": 500, "x-overflow": "reject-publish"})
    return channel


def numbered(number: int) -> Outgoing:
    return replace(TO_MINE, body=str(number).encode())


async def publish(window: Window, message: Outgoing, message_id: str) -> bool:
    return await window.publish(message, message_id)


async def taken(channel: aio_pika.abc.AbstractChannel) -> list[int]:
    queue = await channel.get_queue("mine")
    found = []
    while (message := await queue.get(fail=False)) is not None:
        await message.ack()
        found.append(int(message.body))
    return found


async def test_what_comes_at_once_keeps_its_order_and_leaves_nothing_behind(
    channel: aio_pika.abc.AbstractChannel,
) -> None:
    window = Window(await raw_channel(channel), 60)
    confirmed = await asyncio.gather(*(window.publish(numbered(one), f"id-{one}") for one in range(300)))
    assert confirmed == [True] * 300
    assert await taken(channel) == list(range(300))
    assert len(window) == 0


async def test_a_message_that_is_returned_refused_or_cannot_be_encoded_fails_alone(
    channel: aio_pika.abc.AbstractChannel,
) -> None:
    window = Window(await raw_channel(channel), 60)
    some = [numbered(one) for one in range(490)]
    nowhere = replace(TO_MINE, routing_key="there is none")
    too_long = replace(TO_MINE, routing_key="k" * 300)
    answers = await asyncio.gather(
        *(publish(window, one, f"id-{number}") for number, one in enumerate([nowhere, *some, too_long])),
        return_exceptions=True,
    )
    assert answers[:-1] == [False] + [True] * 490
    assert isinstance(answers[-1], ValueError)
    full = [window.publish(numbered(490 + one), f"more-{one}") for one in range(20)]
    answers = await asyncio.gather(*full, return_exceptions=True)
    assert any(isinstance(one, DeliveryError) for one in answers)
    assert await window.publish(replace(nowhere, mandatory=False), "an event that nobody is bound to")


async def test_all_that_wait_learn_at_once_that_the_channel_is_closed_and_whoever_comes_later_too(
    channel: aio_pika.abc.AbstractChannel,
) -> None:
    window = Window(await raw_channel(channel), 600)
    wrong = replace(TO_MINE, exchange="there is none")
    answers = await asyncio.gather(
        *(window.publish(one, f"id-{number}") for number, one in enumerate([wrong, *map(numbered, range(20))])),
        return_exceptions=True,
    )
    assert {type(one) for one in answers if one is not True} == {ChannelNotFoundEntity}
    with pytest.raises((ChannelNotFoundEntity, ChannelInvalidStateError)):
        await window.publish(TO_MINE, "later")


async def test_a_message_that_nobody_waits_for_any_more_leaves_nothing_and_fails_no_other(
    channel: aio_pika.abc.AbstractChannel,
) -> None:
    window = Window(await raw_channel(channel), 60)
    given_up = asyncio.create_task(publish(window, numbered(1), "one"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    assert given_up.cancelled()
    assert await window.publish(numbered(2), "two")
    assert await taken(channel) == [1, 2]
    await until(lambda: len(window) == 0, "the broker's answers are taken")


async def test_no_confirm_in_time_is_a_timeout_of_this_message_alone(
    connection: aio_pika.abc.AbstractConnection,
    channel: aio_pika.abc.AbstractChannel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lower = await raw_channel(channel)
    window = Window(lower, 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(wire_of(lower), "transport", SimpleNamespace(write=lambda _: None, is_closing=lambda: False))
        with pytest.raises(TimeoutError):
            await window.publish(TO_MINE, "lost")
    patient = Window(await raw_channel(await connection.channel(publisher_confirms=True)), 60)
    assert await patient.publish(TO_MINE, "not lost")


async def test_what_a_window_does_not_take_still_reaches_the_library(channel: aio_pika.abc.AbstractChannel) -> None:
    window = Window(await raw_channel(channel), 60)
    many = [window.publish(numbered(one), f"id-{one}") for one in range(100)]
    assert (await channel.declare_queue("mine", passive=True)).name == "mine"
    assert await asyncio.gather(*many) == [True] * 100
