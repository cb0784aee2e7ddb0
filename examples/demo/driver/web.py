"""Ask an HTTP service for JSON."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

SECONDS = 60


async def ask(method: str, url: str, body: object = None, *, login: str = "") -> tuple[int, Any]:
    """Send a request; return the status and the JSON answer, None if there is none.

    Raises:
        OSError: the service does not answer.
    """

    def exchange() -> tuple[int, Any]:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=SECONDS)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Basic {login}"} if login else {})
        try:
            connection.request(method, parts.path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else None

    try:
        return await asyncio.to_thread(exchange)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"{urlsplit(url).netloc} does not answer as a web server: {error}") from error
