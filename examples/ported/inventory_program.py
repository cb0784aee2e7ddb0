"""An inventory, as NetBox is one: another program, which knows nothing of the engine. Only Python's standard library.

    GET    /{kind}?name=…       those with this name
    POST   /{kind}              201 and the new one, with its id; 409 when there is one with this name
    GET    /{kind}/{id}         200 or 404
    PATCH  /{kind}/{id}         change it
    DELETE /{kind}/{id}         204 or 404

Every device has four ports. Prints its URL when it is ready; ends on SIGTERM.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

Thing = dict[str, Any]
Answer = tuple[HTTPStatus, Thing | list[Thing] | None]
PORTS = [f"ge-0/0/{number}" for number in range(4)]


class Inventory:
    """All that is recorded, in memory."""

    def __init__(self) -> None:
        self._things: dict[tuple[str, int], Thing] = {}
        self._numbers = count(1)
        self._lock = Lock()

    def answer(self, method: str, url: str, body: bytes) -> Answer:
        """Do what is asked."""
        where = urlsplit(url)
        kind, _, number = where.path.strip("/").partition("/")
        with self._lock:
            if not number:
                name = parse_qs(where.query).get("name", [None])[0]
                return self._create(kind, json.loads(body)) if method == "POST" else self._find(kind, name)
            return self._change(method, (kind, int(number)), body)

    def _find(self, kind: str, name: str | None) -> Answer:
        things = [one for (its_kind, _), one in self._things.items() if its_kind == kind]
        return HTTPStatus.OK, [one for one in things if name in {None, one["name"]}]

    def _create(self, kind: str, thing: Thing) -> Answer:
        _, same = self._find(kind, thing["name"])
        if same:
            return HTTPStatus.CONFLICT, None
        number = next(self._numbers)
        self._things[kind, number] = thing | {"id": number} | ({"ports": PORTS} if kind == "devices" else {})
        return HTTPStatus.CREATED, self._things[kind, number]

    def _change(self, method: str, key: tuple[str, int], body: bytes) -> Answer:
        if key not in self._things:
            return HTTPStatus.NOT_FOUND, None
        if method == "DELETE":
            del self._things[key]
            return HTTPStatus.NO_CONTENT, None
        if method == "PATCH":
            self._things[key].update(json.loads(body))
        return HTTPStatus.OK, self._things[key]


def answering_for(inventory: Inventory) -> type[BaseHTTPRequestHandler]:
    """Return the HTTP application."""

    class Answering(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            try:
                status, document = inventory.answer(self.command, self.path, body)
            except (ValueError, KeyError) as error:
                status, document = HTTPStatus.BAD_REQUEST, {"error": str(error)}
            text = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status is not HTTPStatus.NO_CONTENT:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - http.server looks for these names

    return Answering


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), answering_for(Inventory()))
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
