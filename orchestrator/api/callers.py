"""Who sends a request, and what they may do.

Each path names the role that it needs: ``caller: Annotated[Caller, requires(Role.START)]``. The caller's name stands in every
entry of a log that the request causes; no body can set it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import structlog
from fastapi import Request, Security, params
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from orchestrator.api.authentication import ANONYMOUS, Authenticator, Caller
from orchestrator.api.bodies import require_known_parameters
from orchestrator.api.context import ApiContext
from orchestrator.authorization import Role
from orchestrator.errors import InsufficientRoleError

__all__ = ["ANONYMOUS", "Caller", "Role", "check_role", "find_authenticator", "find_websocket_caller", "requires"]

_DOCUMENTED: Final = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    bearerFormat="API key or JWT",
    description="An API key of `orchestrator api-keys create`, or an access token of the OIDC issuer.",
)
"""For the OpenAPI document only; the authenticator reads the header itself."""


def find_authenticator(connection: HTTPConnection) -> Authenticator:
    """Return what finds the callers of the program that serves a request or a WebSocket."""
    authenticator: Authenticator = connection.app.state.authenticator
    return authenticator


def requires(role: Role) -> Any:
    """Return the dependency that finds a caller with this role, whose parameters the path has, and who does not send too much."""

    async def find(request: Request, _: Annotated[object, Security(_DOCUMENTED)]) -> AsyncIterator[Caller]:
        caller = await find_authenticator(request).find_caller(request.headers)
        check_role(caller, role)
        require_known_parameters(request)
        context: ApiContext = request.app.state.context
        with context.turns.taken(str(caller.name)):
            yield caller

    # The scopes are for the OpenAPI document, which names the role with them. A turn ends when the path's function does: what
    # is sent then costs nobody anything, and a stream is sent for days.
    return params.Security(find, scope="function", scopes=[role.value])


async def find_websocket_caller(websocket: HTTPConnection, role: Role) -> tuple[Caller, str | None]:
    """Return who opens a WebSocket, and the subprotocol to accept it with; see :class:`Authenticator`.

    Raises:
        UnauthenticatedError, InsufficientRoleError, HTTPException: refuse it.
    """
    caller, protocol = await find_authenticator(websocket).find_websocket_caller(websocket)
    check_role(caller, role)
    return caller, protocol


def check_role(caller: Caller, role: Role) -> None:
    """Check that a caller has a role, and write the name of the caller into all that is logged from now on.

    Raises:
        InsufficientRoleError.
    """
    structlog.contextvars.bind_contextvars(user=str(caller.name))
    if role not in caller.roles:
        raise InsufficientRoleError(f"{str(caller.name)!r} may not do this: it needs the role {role.value}", role.value)
