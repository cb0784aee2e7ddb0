"""How we talk to the network controller: three calls over HTTP, each of which may fail.

Plain functions for plain steps, which run in threads and hold nobody up.
"""

from __future__ import annotations

import http.client
import json
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

from examples.network.settings import NetworkSettings
from orchestrator.errors import ProcessFailureError

Configuration = dict[str, Any]
"""What a service looks like to the controller: JSON."""

SECONDS = 10


def put(service: UUID, configuration: Configuration, idempotency_key: str) -> int:
    """Make the network do this for a service; return the number by which the controller knows it.

    Raises:
        ProcessFailureError: it did not.
    """
    answer = _call("PUT", service, configuration, idempotency_key)
    assert answer is not None  # noqa: S101 - a PUT makes what it does not find
    return int(answer["number"])


def read(service: UUID) -> Configuration | None:
    """Return what the network does for a service; ``None`` if nothing.

    Raises:
        ProcessFailureError: it does not say.
    """
    answer = _call("GET", service)
    return None if answer is None else cast("Configuration", answer["configuration"])


def delete(service: UUID, idempotency_key: str) -> None:
    """Make the network do nothing for a service any more.

    Raises:
        ProcessFailureError: it did not.
    """
    _call("DELETE", service, idempotency_key=idempotency_key)


def _call(
    method: str, service: UUID, configuration: Configuration | None = None, idempotency_key: str = ""
) -> dict[str, Any] | None:
    where = urlsplit(NetworkSettings().controller_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=SECONDS)
    try:
        body = None if configuration is None else json.dumps(configuration)
        connection.request(method, f"/services/{service}", body, {"Idempotency-Key": idempotency_key})
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ProcessFailureError(f"the network controller at {where.netloc} does not answer: {error}") from error
    finally:
        connection.close()
    if answer.status == HTTPStatus.NOT_FOUND:
        return None
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise ProcessFailureError(f"the network controller answers {answer.status} {answer.reason}")
    return dict(json.loads(text)) if text else {}
