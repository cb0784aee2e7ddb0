"""Ask a coordinator or consumer whether it is ready: ``orchestrator health``, for probes of containers."""

from __future__ import annotations

import http.client
from http import HTTPStatus
from typing import Annotated, Final

import typer

from orchestrator.cli.context import REFUSED, CliContext, execute
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.errors import ConfigurationError

PATIENCE: Final = 5.0
"""Seconds for an answer: the program itself waits for up to three."""

LONGEST: Final = 2000
"""Bytes of an answer that are read."""

Address = Annotated[
    str | None,
    typer.Argument(
        metavar="[HOST:PORT]",
        help="Where the program serves its metrics; default ORCHESTRATOR_METRICS_ADDRESS.",
        show_default=False,
    ),
]


def health(address: Address = None, as_json: AsJson = False) -> None:
    """Ask a program on its metrics address whether it is ready; the exit code is 0 if it is, else 1.

    Example: orchestrator health 127.0.0.1:9100
    """

    async def body(context: CliContext) -> int | None:
        place = address or context.settings.metrics_address
        if place is None:
            raise ConfigurationError(
                "no program can be asked: set ORCHESTRATOR_METRICS_ADDRESS for it and here, or name the address"
            )
        problem = _ask(place)
        context.output.line("ready" if problem is None else f"not ready: {clean(problem)}")
        context.output.document({"address": place, "ready": problem is None, "reason": problem})
        return None if problem is None else REFUSED

    execute(body, as_json=as_json)


def _ask(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ConfigurationError(f"{address!r} is no address: write HOST:PORT")
    host = host.strip("[]")
    connection = http.client.HTTPConnection(
        {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host),  # noqa: S104 - nothing listens here
        int(port),
        timeout=PATIENCE,
    )
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        text = answer.read(LONGEST).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers at {address}: {error}"
    finally:
        connection.close()
    return None if answer.status == HTTPStatus.OK else text
