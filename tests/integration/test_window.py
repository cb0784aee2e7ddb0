"""Messages that are published in the same moment share a write and keep their order, and none has the fate of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import aio_pika
import pytest
from aiormq.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity, DeliveryError

from orchestrator.broker.connection import raw_channel
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.window import Window
from tests.integration.waiting import until

TO_MINE = Outgoing("", "mine", "some.type", b"{}", "a process", {"workflow": "w", "traceparent": "t"})


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue("mine", arguments={"x-max-length": 500, "x-overflow": "reject-publish"})
        yield channel


def numbered(number: int) -> Outgoing:
    return replace(TO_MINE, body=str(number).encode())


async def taken(channel: aio_pika.abc.AbstractChannel) -> list[int]:
    queue = await channel.get_queue("mine")
    found = []
    while (message := await queue.get(fail=False)) is not None:
        await message.ack()
        found.append(int(message.body))
    return found


async def test_what_comes_at_once_goes_out_in_few_writes_and_in_order(
    channel: aio_pika.abc.AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = await raw_channel(channel)
    window = Window(lower, 60)
    writes = 0
    put = lower.write_queue.put

    async def counting(frame: object) -> None:
        nonlocal writes
        writes += 1
        await put(frame)

    monkeypatch.setattr(lower.write_queue, "put", counting)
    confirmed = await asyncio.gather(*(window.publish(numbered(one), f"id-{one}") for one in range(300)))
    assert confirmed == [True] * 300
    assert writes == 1
    assert await taken(channel) == list(range(300))
    assert not lower.confirmations
    assert not lower.message_id_delivery_tag


async def test_a_message_that_is_returned_refused_or_cannot_be_encoded_fails_alone(
    channel: aio_pika.abc.AbstractChannel,
) -> None:
    window = Window(await raw_channel(channel), 60)
    some = [numbered(one) for one in range(490)]
    nowhere = replace(TO_MINE, routing_key="there is none")
    too_long = replace(TO_MINE, routing_key="k" * 300)
    answers = await asyncio.gather(
        *(window.publish(one, f"id-{number}") for number, one in enumerate([nowhere, *some, too_long])),
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


async def test_a_message_that_nobody_waits_for_any_more_is_not_sent_or_leaves_nothing(
    channel: aio_pika.abc.AbstractChannel,
) -> None:
    lower = await raw_channel(channel)
    window = Window(lower, 60)
    before_it_is_sent = asyncio.create_task(window.publish(numbered(1), "one"))
    await asyncio.sleep(0)
    before_it_is_sent.cancel()
    assert await window.publish(numbered(2), "two")
    sent = asyncio.create_task(window.publish(numbered(3), "three"))
    await until(lambda: lower.delivery_tag == 2, "it is sent")
    sent.cancel()
    await asyncio.wait([before_it_is_sent, sent])
    assert await window.publish(numbered(4), "four")
    assert await taken(channel) == [2, 3, 4]
    await until(lambda: not lower.confirmations, "the broker's answers are taken")
    assert not lower.message_id_delivery_tag


async def test_no_confirm_in_time_is_a_timeout(
    channel: aio_pika.abc.AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = await raw_channel(channel)

    async def lose(_: object) -> None: ...

    monkeypatch.setattr(lower.write_queue, "put", lose)
    with pytest.raises(TimeoutError):
        await Window(lower, 0.05).publish(TO_MINE, "lost")
