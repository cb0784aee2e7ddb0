"""Follow what happens: print every event of the engine, one line each, until Ctrl-C.

Events carry no state: a reader that needs more asks the engine. They come at least once, in order per process.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

import pika


def show(channel: Any, method: Any, _: Any, body: bytes) -> None:
    """Print one event and acknowledge it. ``sequence`` tells an event that comes twice."""
    event = json.loads(body)
    print(event["at"], event["process_id"], event["sequence"], method.routing_key, flush=True)
    channel.basic_ack(method.delivery_tag)


def follow() -> None:
    """Bind a queue of our own, which ends with this program; a service that must miss nothing declares a durable one."""
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["ORCHESTRATOR_AMQP_URL"])).channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    for key in ("process.#", "step.#"):  # or process.place_router.failed, step.*.waiting, …
        channel.queue_bind(queue, "orchestrator.events", key)
    channel.basic_consume(queue, show)
    print("following", flush=True)
    with suppress(KeyboardInterrupt):
        channel.start_consuming()


if __name__ == "__main__":
    follow()
