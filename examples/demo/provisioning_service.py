"""A service that configures routers, when it feels like it: it fails twice for every order before it obeys.

    PUT /orders/{idempotency key}   503, 503, then 201 with the configuration; 200 with the same one ever after
    GET /orders                     for every key: how often it was called, and how often it had an effect

Knows nothing of the engine; only Python's standard library. Prints its URL when it is ready; ends on SIGTERM.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

FAILURES = 2


@dataclass
class Order:
    """One idempotency key."""

    calls: int = 0
    effects: int = 0
    configuration: str = ""


class Orders:
    """All orders, in memory."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._orders: dict[str, Order] = {}

    def place(self, key: str, wish: dict[str, object]) -> tuple[HTTPStatus, dict[str, object]]:
        """Fail, obey, or repeat the answer."""
        with self._lock:
            order = self._orders.setdefault(key, Order())
            order.calls += 1
            if order.calls <= FAILURES:
                return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the router is busy"}
            if order.effects:
                return HTTPStatus.OK, {"configuration": order.configuration}
            order.effects += 1
            order.configuration = f"{wish['node']}/port-{wish['port']} at {wish['bandwidth']} Mbit/s"
            return HTTPStatus.CREATED, {"configuration": order.configuration}

    def all(self) -> dict[str, object]:
        """Return the outcome of each."""
        with self._lock:
            return {key: asdict(order) for key, order in self._orders.items()}


def answering_for(orders: Orders) -> type[BaseHTTPRequestHandler]:
    """Return the HTTP application."""

    class Answering(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            words = self.path.strip("/").split("/")
            self._answer(lambda: orders.place(words[1], json.loads(self._body())), known=words[0] == "orders")

        def do_GET(self) -> None:
            self._answer(lambda: (HTTPStatus.OK, orders.all()), known=self.path == "/orders")

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))

        def _answer(self, ask: Callable[[], tuple[HTTPStatus, dict[str, object]]], *, known: bool) -> None:
            status, document = HTTPStatus.NOT_FOUND, dict[str, object]()
            if known:
                try:
                    status, document = ask()
                except (ValueError, LookupError) as error:
                    status, document = HTTPStatus.BAD_REQUEST, {"error": str(error)}
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Answering


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), answering_for(Orders()))
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
