"""A callback: a workflow sends a job to another program and waits; that program answers with pika.

As a program (``python examples/recipes/callback_with_pika.py``) this file is the other side.
"""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Any

import pika

from orchestrator.types import State
from orchestrator.workflow import StepList, callback_step, done, init, step, workflow

JOBS = "recipes.jobs"


def connect() -> Any:
    """Open a connection to the broker. In production each program has an account of its own."""
    return closing(pika.BlockingConnection(pika.URLParameters(os.environ["ORCHESTRATOR_AMQP_URL"])))


@step("Send the job")
def send_job(callback_token: str, callback_exchange: str, idempotency_key: str) -> None:
    """Publish the job. A plain function runs in a thread, so pika may block."""
    job = {"token": callback_token, "exchange": callback_exchange, "job": idempotency_key}
    with connect() as connection:
        channel = connection.channel()
        channel.queue_declare(JOBS, durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", JOBS, json.dumps(job), pika.BasicProperties(delivery_mode=2), mandatory=True)


@step("Check the measurement")
async def check_measurement(callback_result: dict[str, float]) -> State:
    """Fail the process when too little light arrives; a retry sends a new job."""
    assert callback_result["light"] > -20, f"only {callback_result['light']} dBm arrive"  # noqa: PLR2004, S101
    return {"light": callback_result["light"]}


@workflow("Measure a line")
def measure_line() -> StepList:
    """Send the job, wait up to an hour for the answer, check it."""
    return init >> callback_step("Wait for the measurement", send_job, check_measurement, timeout=3600) >> done


def answer(channel: Any, method: Any, _: Any, body: bytes) -> None:
    """Measure and answer with the token; acknowledge the job when the broker has confirmed the answer."""
    job = json.loads(body)
    properties = pika.BasicProperties(correlation_id=job["token"], content_type="application/json", delivery_mode=2)
    result = json.dumps({"light": -7.5})
    channel.basic_publish(job["exchange"], "callback.completed", result, properties, mandatory=True)
    channel.basic_ack(method.delivery_tag)


if __name__ == "__main__":
    with connect() as opened:
        jobs = opened.channel()
        jobs.queue_declare(JOBS, durable=True)
        jobs.confirm_delivery()
        jobs.basic_consume(JOBS, answer)
        jobs.start_consuming()
