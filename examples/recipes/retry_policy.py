"""A retry policy: read the version of a device that may be unreachable for a while.

While the step waits, the process is a row with the status ``waiting``: no program holds it.
"""

from __future__ import annotations

import asyncio

from tenacity import wait_exponential

from orchestrator.errors import ProcessFailureError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.retry import RetryPolicy
from orchestrator.types import State
from orchestrator.workflow import StepList, done, init, retrystep, workflow

PATIENT = RetryPolicy(wait=wait_exponential(multiplier=1, max=60), limit=20)
"""Wait 1, 2, 4, … 60 s between tries; after 20 tries the process is ``failed``."""


class Device(FormPage):
    """Where the device listens."""

    host: str
    port: int = 22


def device_form() -> FormGenerator:
    """Ask for the device."""
    device = yield Device
    return device.model_dump()


@retrystep("Read the version of the device", retry=PATIENT, timeout=10)
async def read_banner(host: str, port: int) -> State:
    """Read the first line that the device sends. Any exception leads to another try."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        banner = await reader.readline()
    finally:
        writer.close()
    if not banner:
        raise ProcessFailureError(f"{host}:{port} closed the connection without a banner")
    return {"version": banner.decode(errors="replace").strip()}


@workflow("Read the version of a device", initial_input_form=device_form)
def read_version() -> StepList:
    """Build the workflow: one step that is retried."""
    return init >> read_banner >> done
