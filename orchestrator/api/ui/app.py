"""Put the pages into the API's application."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final

import httpx
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response

from orchestrator.api.authentication import Authenticator
from orchestrator.api.context import ApiContext
from orchestrator.api.ui import (
    catalogue,
    letters,
    overview,
    process,
    process_actions,
    processes,
    schedules,
    signing_in,
    starting,
    subscriptions,
)
from orchestrator.api.ui.addresses import HOME
from orchestrator.api.ui.assets import make_environment, send_asset
from orchestrator.api.ui.filters import FILTERS
from orchestrator.api.ui.oidc import OidcSignIn
from orchestrator.api.ui.page import Page, PageRouter, Ui, visit
from orchestrator.api.ui.sessions import Sessions
from orchestrator.authorization import Role

ROUTERS: Final = (
    signing_in.router,
    overview.router,
    processes.router,
    process.router,
    process_actions.router,
    starting.router,
    subscriptions.router,
    catalogue.router,
    schedules.router,
    letters.router,
)
"""All pages. The first path that fits serves a request."""

_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]

_other = PageRouter()


@_other.get("/assets/{name}")
async def get_asset(name: str) -> Response:
    """Send a file; nobody needs to sign in for it."""
    found = send_asset(name)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such file")
    return found


@_other.api_route("/{path:path}", methods=_METHODS)
async def refuse(page: Annotated[Page, visit(Role.READ)], path: str) -> Response:
    """Say that there is no such page, to who has signed in."""
    del page, path
    raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such page")


def install_ui(app: FastAPI) -> None:
    """Make an application serve the pages."""
    for one in (*ROUTERS, _other):
        app.include_router(one, prefix=HOME)


def open_ui(
    app: FastAPI, context: ApiContext, authenticator: Authenticator, issuer: httpx.AsyncBaseTransport | None = None
) -> None:
    """Give the pages what they share.

    Args:
        issuer: how the OIDC issuer is asked, for tests; default the network.
    """
    settings = context.settings
    oidc = None if settings.oidc_client_id is None else OidcSignIn(settings, authenticator, issuer)
    environment = make_environment()
    environment.filters.update(FILTERS)
    app.state.ui = Ui(Sessions(settings, context.database, authenticator), environment, oidc)
