"""Start a workflow from another service by message, and print the reply.

    python examples/recipes/start_and_reply.py order-4711 read_version '{"host": "192.0.2.1"}'

Repeating it with the same key starts nothing: the reply names the first process, with ``"created": false``.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from typing import Any

import pika

REPLY_TO = "amq.rabbitmq.reply-to"


def start(key: str, workflow: str, *pages: str) -> str:
    """Publish ``workflow.start`` and return the type and body of the reply."""
    command = {
        "workflow": workflow,
        "inputs": [json.loads(page) for page in pages],
        "user": "crm",
        "idempotency_key": key,
    }
    with closing(pika.BlockingConnection(pika.URLParameters(os.environ["ORCHESTRATOR_AMQP_URL"]))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        # Direct reply-to: the broker hands the reply to this channel. It must be consumed before the command is published.
        replies: list[Any] = []
        channel.basic_consume(REPLY_TO, lambda *reply: replies.append(reply), auto_ack=True)
        properties = pika.BasicProperties(reply_to=REPLY_TO, correlation_id=key, delivery_mode=2)
        channel.basic_publish(
            "orchestrator.commands", "workflow.start", json.dumps(command), properties, mandatory=True
        )
        connection.process_data_events(time_limit=30)
    if not replies:
        return "no reply within 30 s: send the same message again"
    *_, found, reply = replies[0]
    return f"{found.type} {reply.decode()}"


if __name__ == "__main__":
    print(start(*sys.argv[1:]))
