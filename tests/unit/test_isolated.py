"""What a child process says to its consumer, and in which order."""

from __future__ import annotations

import asyncio
import socket
from uuid import uuid4

from consumers.isolated import Consumer
from consumers.pipe import Count, Ended, Publish, from_child
from orchestrator.broker.outgoing import Outgoing
from orchestrator.types import StepStatus


async def test_an_attempt_is_counted_before_it_has_ended_because_the_consumer_may_close_the_child_then() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        consumer, attempt = Consumer(its), uuid4()
        count = Count(workflow="w", step="s", status=StepStatus.SUCCESS, warned=False, blocked=False)
        # As for every outcome: its message goes before its line and its count.
        asyncio.get_running_loop().call_soon(consumer.send, count)
        await consumer.publish(Outgoing("", "anywhere", "step.result", b"{}"))
        consumer.send(Ended(process_id=attempt, attempt=1))
        await asyncio.sleep(0)
        its.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as lines:
            kinds = [type(from_child.validate_json(line)) for line in lines]
    assert kinds == [Publish, Count, Ended]
