"""The API program: its parts, its start and its graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator
from http import HTTPStatus
from uuid import uuid4

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestrator.api.app import create_app
from orchestrator.api.context import ApiContext
from orchestrator.api.edge import REQUEST_ID, SECURITY_HEADERS
from orchestrator.api.exposure import check_exposure, guard
from orchestrator.api.metrics import ApiMetrics
from orchestrator.api.problems import ProblemResponse
from orchestrator.broker.doorbell import Doorbell
from orchestrator.errors import ConfigurationError
from orchestrator.health import Health
from orchestrator.hosts import program_name
from orchestrator.metrics import Exposed, serve_metrics
from orchestrator.runtime import ending_with, open_servers
from orchestrator.settings import Settings
from orchestrator.user_code import HOOK_THREADS
from orchestrator.workflows.shipped import load_workflows

logger = structlog.get_logger(__name__)

ANNOUNCED = 1.0
"""Seconds between the first sign of a stop, readiness 503, and the end of the listening socket."""

MAX_FRAME = 4096
"""Bytes of a WebSocket message: clients send nothing but pings."""

UNACKNOWLEDGED = 30.0
"""Seconds after which a connection is given up whose peer has gone, or does not read. Pings make sure that there is something."""


async def run_api(
    settings: Settings, stopping: asyncio.Event, listener: socket.socket, *, require_broker: bool = False
) -> None:
    """Serve the API on a listening socket until ``stopping`` is set, then finish the requests in progress.

    Args:
        require_broker: end at once without it. By default reading works while it is away, and what is started then is published
            by the reconciler.

    Raises:
        DefinitionError, ConfigurationError, ServerUnavailableError: at start-up; each text is one line.
    """
    check_exposure(settings, listener)
    load_workflows(settings.workflows, shipped_schedules=settings.shipped_schedules)
    metrics = ApiMetrics()
    with (
        serve_metrics(metrics.registry, settings.metrics_address) as exposed,
        ending_with(HOOK_THREADS, stopping),
    ):
        await _serve(settings, stopping, listener, metrics, exposed, require_broker=require_broker)


async def _serve(
    settings: Settings,
    stopping: asyncio.Event,
    listener: socket.socket,
    metrics: ApiMetrics,
    exposed: Exposed,
    *,
    require_broker: bool,
) -> None:
    async with open_servers(settings, "api", require_broker=require_broker) as servers:
        # Without the broker reading works.
        exposed.find_problem = Health(servers.database, stopping, lambda: True)
        context = ApiContext(settings, servers.database, servers.publisher, stopping, metrics)
        metrics.observe_streams(lambda: context.live.readers)
        # In a thread: hundreds of routes and models take seconds on a slow machine, and 'dev' runs its other programs here.
        application = await asyncio.to_thread(create_app, context)
        server = Server(guard(application, settings), settings.drain_grace)
        bell = Doorbell(servers.address, servers.topology, f"api.{program_name()}")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(servers.publisher.run())
            tasks.create_task(context.live.run(bell, stopping))
            # What is there now stays until the end: the application, its models, all modules. Walking over it takes Python's
            # garbage collector 30 ms, in which nobody would be served.
            gc.collect()
            gc.freeze()
            serving = tasks.create_task(server.serve([listener]))
            servers.started()
            logger.info("API started", address=address_of(listener))
            await stopping.wait()
            logger.info("API stopping")
            # Readiness says so first, and streams end, while those who have not heard of it are still served.
            await asyncio.wait({serving}, timeout=ANNOUNCED)
            server.should_exit = True
            await serving
            await context.drain()
            await servers.publisher.stop()
        logger.info("API stopped")


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigurationError: the address is in use, or not one of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"the API cannot listen on {host}:{port}: {error}; choose another with --host or --port"
        ) from error
    listener.setblocking(False)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Accepted sockets inherit it. Closing one is not enough: the kernel would go on trying to send what is left.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNACKNOWLEDGED))
    return listener


def bind_default(host: str, port: int) -> socket.socket:
    """Return a listening socket on this port, or on a free one when it is in use, with a warning."""
    try:
        return bind(host, port)
    except ConfigurationError:
        listener = bind(host, 0)
        logger.warning(
            "the API listens on another port, because this one is in use", port=port, address=address_of(listener)
        )
        return listener


def address_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Protocol(H11Protocol):
    """uvicorn's HTTP by h11, which has a limit for the size of all headers: 64 KiB."""

    def send_400_response(self, msg: str) -> None:
        """Answer what never reaches the application, because it is not HTTP or its headers are too large."""
        del msg
        answer = ProblemResponse(
            HTTPStatus.BAD_REQUEST,
            "the request is not HTTP/1.1, or its headers are larger than 64 KiB",
            headers={**SECURITY_HEADERS, REQUEST_ID: uuid4().hex, "connection": "close"},
        )
        response = h11.Response(status_code=answer.status_code, headers=answer.raw_headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn, without what this program does itself: signals, logging, the event loop."""

    def __init__(self, app: ASGIApp, drain_grace: float) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            lifespan="off",
            log_config=None,
            access_log=False,  # its lines have whole paths, and so callback tokens
            server_header=False,
            proxy_headers=False,
            # Its wait for open connections has no end without it.
            timeout_graceful_shutdown=max(1, int(drain_grace)),
            ws_max_size=MAX_FRAME,
            # Compression takes 300 KB per connection, and the messages are short.
            ws_per_message_deflate=False,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the program."""
        yield
