"""Build the application: its paths, its answers to errors, and the layer around it."""

from __future__ import annotations

from typing import Final

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp

from orchestrator import __version__
from orchestrator.api import problems
from orchestrator.api.authentication import Authenticator
from orchestrator.api.bodies import Router
from orchestrator.api.context import ApiContext
from orchestrator.api.docs_page import install_docs_page
from orchestrator.api.edge import surround
from orchestrator.api.openapi import install_openapi
from orchestrator.api.routes import (
    api_keys,
    asyncapi,
    callbacks,
    dead_letters,
    engine,
    environment,
    events,
    events_socket,
    explanations,
    graphql,
    health,
    metadata,
    process_commands,
    process_corrections,
    processes,
    schedule_form,
    schedules,
    search,
    subscriptions,
)
from orchestrator.api.ui.app import install_ui, open_ui

PREFIX: Final = "/api"

ROUTERS: Final = (
    health.router,
    asyncapi.router,
    environment.router,
    api_keys.router,
    explanations.router,
    engine.router,
    process_corrections.router,
    processes.router,
    process_commands.router,
    subscriptions.router,
    metadata.router,
    schedules.router,
    schedule_form.router,
    search.router,
    graphql.router,
    callbacks.router,
    dead_letters.router,
    events.router,
    events_socket.router,
)
"""The first path that fits a request serves it, so that fixed paths stand before those with a parameter."""

DESCRIPTION = """
Start and follow workflows, give input, answer callbacks, look at subscriptions. Errors are problem documents (RFC 9457).
"""


def create_app(context: ApiContext, issuer: httpx.AsyncBaseTransport | None = None) -> ASGIApp:
    """Return the API's application for these servers.

    Args:
        issuer: how the OIDC issuer is asked, for tests; default the network.
    """
    return open_app(create_inner_app(context), context, issuer)


def open_app(app: FastAPI, context: ApiContext, issuer: httpx.AsyncBaseTransport | None = None) -> ASGIApp:
    """Return an application with the layers around it, for these servers; it keeps nothing of those that it had before."""
    app.state.context = context
    authenticator = Authenticator(context.settings, context.database, issuer)
    app.state.authenticator = authenticator
    open_ui(app, context, authenticator, issuer)
    return surround(app, context.settings, context.metrics)


def create_inner_app(context: ApiContext) -> FastAPI:
    """Return the application without the layers around it: what the OpenAPI document is made of."""
    app = FastAPI(
        title="orchestrator",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        # A redirect repeats the path, and so a callback token, in a header.
        redirect_slashes=False,
    )
    app.state.context = context
    router = Router(prefix=PREFIX)
    for one in ROUTERS:
        router.include_router(one)
    app.include_router(router)
    install_ui(app)
    install_docs_page(app, f"{PREFIX}/docs", f"{PREFIX}/openapi.json")
    problems.install(app)
    install_openapi(app)
    return app
