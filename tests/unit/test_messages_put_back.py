"""Messages that a coordinator sends again to the end of the queue from which they come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.broker.dead_letters import again
from orchestrator.broker.incoming import Delivery


def delivery(**properties: Any) -> Delivery:
    return Delivery(
        "orchestrator.commands",
        b"{}",
        "workflow.start",
        "workflow.start",
        properties.get("message_id"),
        "7",
        None,
        redelivered=False,
        exchange="orchestrator.commands",
        properties=properties,
    )


def test_a_message_is_the_same_at_the_end_of_its_queue() -> None:
    headers = {"tenant": "one", "x-delivery-count": 3}
    message = again(delivery(message_id="m", reply_to="answers", priority=3, headers=headers))
    assert message is not None
    assert (message.exchange, message.routing_key, message.type) == (
        "orchestrator.commands",
        "workflow.start",
        "workflow.start",
    )
    assert (message.body, message.correlation_id) == (b"{}", "7")
    assert message.headers == {"tenant": "one"}
    assert message.properties == {"message_id": "m", "reply_to": "answers", "priority": 3}


def test_a_message_that_came_through_an_exchange_of_others_is_not_sent_there() -> None:
    assert again(replace(delivery(message_id="m"), exchange="crm.out")) is None


@pytest.mark.parametrize("properties", [{"user_id": "crm"}, {"expiration": "60000"}, {"headers": {"h": "x" * 120_000}}])
def test_a_message_that_would_become_another_one_stays(properties: dict[str, Any]) -> None:
    assert again(delivery(**properties)) is None
