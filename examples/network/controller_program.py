"""A network controller: another program, which knows nothing of the engine. Only Python's standard library.

    PUT    /services/{id}     503 the first time for each Idempotency-Key, then 200 and the service's number
    GET    /services/{id}     what is configured
    DELETE /services/{id}     503 the first time for each key, then 204
    PATCH  /services/{id}     change the configuration by hand, without anyone being notified
    GET    /services          everything

Prints its URL when it is ready; ends on SIGTERM.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

Answer = tuple[HTTPStatus, dict[str, Any] | None]


@dataclass
class Network:
    """All that is configured, in memory."""

    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    busy: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def answer(self, method: str, path: str, key: str, body: bytes) -> Answer:
        """Do what is asked, if it can be understood."""
        words = path.strip("/").split("/")
        if words[0] != "services":
            return HTTPStatus.NOT_FOUND, None
        with self._lock:
            if len(words) == 1:
                return HTTPStatus.OK, {"services": self.services, "busy": self.busy}
            if method in {"PUT", "DELETE"} and self._is_busy(key):
                return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the network is busy"}
            return self._change(method, words[1], body)

    def _is_busy(self, key: str) -> bool:
        if key in self.keys:
            return False
        self.keys.add(key)
        self.busy += 1
        return True

    def _change(self, method: str, service: str, body: bytes) -> Answer:
        if method == "PUT":
            self.services[service] = json.loads(body)
            return HTTPStatus.OK, {"number": self._numbers.setdefault(service, len(self._numbers) + 1)}
        if service not in self.services:
            return HTTPStatus.NOT_FOUND, None
        if method == "DELETE":
            del self.services[service]
            return HTTPStatus.NO_CONTENT, None
        if method == "PATCH":
            self.services[service].update(json.loads(body))
        return HTTPStatus.OK, {"configuration": self.services[service]}


def answering_for(network: Network) -> type[BaseHTTPRequestHandler]:
    """Return the HTTP application."""

    class Answering(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            try:
                status, document = network.answer(
                    self.command, self.path, self.headers.get("Idempotency-Key", ""), body
                )
            except ValueError as error:
                status, document = HTTPStatus.BAD_REQUEST, {"error": str(error)}
            text = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status is not HTTPStatus.NO_CONTENT:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815 - http.server looks for these names

    return Answering


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), answering_for(Network()))
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
