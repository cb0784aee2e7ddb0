"""An API that authenticates nobody is for the users of this machine, unless the operator says otherwise."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from orchestrator.api.exposure import check_exposure, guard
from orchestrator.api.program import Server
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings

URLS: dict[str, Any] = {"database_url": "postgresql://u@localhost/d", "amqp_url": "amqp://u:p@localhost/"}
OIDC: dict[str, Any] = {"oidc_issuer": "https://sso.example", "oidc_audience": "orchestrator"}


def settings(**more: Any) -> Settings:
    return Settings(_env_file=None, **URLS, **more)


@contextlib.contextmanager
def listening(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        yield listener


@pytest.mark.parametrize(
    ("host", "chosen", "served"),
    [
        ("127.0.0.1", {}, True),
        ("127.0.0.1", {"auth": "api-keys"}, True),
        ("0.0.0.0", {}, False),  # noqa: S104 - refused for it
        ("0.0.0.0", {"auth": "none"}, True),  # noqa: S104
        ("0.0.0.0", {"auth": "api-keys"}, True),  # noqa: S104
        ("0.0.0.0", {"auth": "oidc,api-keys", **OIDC}, True),  # noqa: S104
    ],
)
def test_without_authentication_it_listens_on_this_machine_only(
    host: str, chosen: dict[str, Any], served: bool
) -> None:
    with listening(host) as listener:
        expected = (
            contextlib.nullcontext() if served else pytest.raises(ConfigurationError, match="set ORCHESTRATOR_AUTH")
        )
        with expected:
            check_exposure(settings(**chosen), listener)


def test_what_a_proxy_says_of_its_client_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is known by an address, so that nobody can choose one; uvicorn's own variable changes nothing."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert not Server(app, 5).config.proxy_headers


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("served")(scope, receive, send)


@pytest.mark.parametrize(
    ("chosen", "warned"),
    [({}, "everybody on this machine"), ({"auth": "none"}, "everybody who reaches"), ({"auth": "api-keys"}, None)],
)
def test_an_open_api_is_warned_of(chosen: dict[str, Any], warned: str | None) -> None:
    with capture_logs() as logs:
        guard(app, settings(**chosen))
    assert [(one["log_level"], warned in one["event"]) for one in logs if warned] == [("warning", True)] * bool(warned)
    assert len(logs) == bool(warned)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("orch.example", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost:evil", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
async def test_an_open_api_answers_only_to_names_of_this_machine(host: str, status: int) -> None:
    """A page of a stranger may lead its own name to this machine, and the browser then lets it do everything."""
    guarded = guard(app, settings(public_url="https://orch.example:8443"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=guarded), base_url="http://api") as client:
        answer = await client.get("/", headers={"host": host})
    assert answer.status_code == status
    assert status == 200 or answer.headers["content-type"] == "application/problem+json"


async def test_a_websocket_with_a_foreign_name_is_refused() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(dict(message))

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    await guard(app, settings())({"type": "websocket", "headers": [(b"host", b"evil.example")]}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("chosen", [{"auth": "none"}, {"auth": "api-keys"}])
async def test_an_api_that_is_meant_to_be_reached_answers_to_every_name(chosen: dict[str, Any]) -> None:
    guarded = guard(app, settings(**chosen))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=guarded), base_url="http://api") as client:
        assert (await client.get("/", headers={"host": "orch.example"})).status_code == 200
