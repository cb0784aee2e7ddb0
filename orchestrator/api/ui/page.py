"""What every page has: its visitor, its rendering, its headers, and its answer to what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Request, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment
from pydantic_core import from_json
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orchestrator.api.authentication import Caller
from orchestrator.api.callers import check_role
from orchestrator.api.context import ApiContext
from orchestrator.api.problems import RETRY_AFTER, answer_defect, describe
from orchestrator.api.ui.addresses import make_link, own_path, prefix_of, safe_return
from orchestrator.api.ui.assets import VERSIONS
from orchestrator.api.ui.oidc import OidcSignIn
from orchestrator.api.ui.sessions import MAX_FIELDS, Session, Sessions
from orchestrator.authorization import Role
from orchestrator.errors import OrchestratorError, RequestError, ServerUnavailableError

logger = structlog.get_logger(__name__)

NAVIGATION: Final = (
    ("", "Overview", Role.READ),
    ("/processes", "Processes", Role.READ),
    ("/subscriptions", "Subscriptions", Role.READ),
    ("/products", "Products", Role.READ),
    ("/workflows", "Workflows", Role.READ),
    ("/schedules", "Schedules", Role.READ),
    ("/dead-letters", "Dead letters", Role.OPERATE),
    ("/start", "Start", Role.START),
)
"""What stands above every page: path below ``/ui``, name, and the role that it needs."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)

HEADERS: Final = {
    "content-security-policy": POLICY,
    # With "no-referrer" browsers would send "Origin: null" with every form.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
}

REFUSED: Final = HTTPStatus.UNPROCESSABLE_ENTITY
"""The only status of an error whose answer htmx puts into the page: a form with words above it."""

_READING: Final = frozenset({"GET", "HEAD"})


class SignInError(Exception):
    """The visitor must sign in first."""


@dataclass(frozen=True, slots=True)
class Ui:
    """What the pages of one program share."""

    sessions: Sessions
    environment: Environment
    oidc: OidcSignIn | None


@dataclass(frozen=True, slots=True)
class Page:
    """One request for a page, or for a part of one.

    Args:
        caller: ``None`` on the few pages that need no sign-in.
    """

    request: Request
    context: ApiContext
    session: Session
    caller: Caller | None

    @property
    def user(self) -> Any:
        """What use cases take as their user."""
        assert self.caller is not None  # noqa: S101 - only paths without ``visit`` have no caller
        return self.caller.name

    @property
    def is_fragment(self) -> bool:
        """Whether htmx asks for a part of a page, to put it into the open one."""
        return _is_fragment(self.request)

    def may(self, role: str) -> bool:
        """Return whether the visitor has a role."""
        return self.caller is not None and Role(role) in self.caller.roles

    async def form(self) -> FormData:
        """Return the fields of the form that was posted.

        Raises:
            HTTPException: 400, no browser sends that and no database holds it.
        """
        sent = await self.request.form(max_fields=MAX_FIELDS)
        if any("\0" in one for _, one in sent.multi_items() if isinstance(one, str)):
            raise HTTPException(HTTPStatus.BAD_REQUEST, "a field of the form has a null character")
        return sent

    def href(self, path: str, /, **query: object) -> str:
        """Return the address of a page; see :func:`make_link`."""
        return make_link(prefix_of(self.request), path, query)

    async def render(self, template: str, code: int = HTTPStatus.OK, **values: object) -> Response:
        """Return a template as the answer, rendered in a thread: a long page must not hold up the others."""
        ui: Ui = self.request.app.state.ui
        known = {**self._values(), **values}
        body = await asyncio.to_thread(ui.environment.get_template(template).render, known)
        return HTMLResponse(body, code)

    def go(self, path: str, /, **query: object) -> Response:
        """Return the answer that leads the browser to another page, or to the same one anew, after a form."""
        address = self.href(path, **query)
        if self.is_fragment:
            return Response(headers={"hx-redirect": address})
        return RedirectResponse(address, HTTPStatus.SEE_OTHER)

    def _values(self) -> dict[str, object]:
        path = str(self.request.scope["path"]).removeprefix(prefix_of(self.request)).removeprefix("/ui")
        here = max((one for one, _, _ in NAVIGATION if _is_below(path, one)), key=len, default=None)
        return {
            "page": self,
            "href": self.href,
            "asset": lambda name: f"{self.href('/assets/' + name)}?v={VERSIONS[name]}",
            "session": self.session,
            "navigation": [(path, name, path == here) for path, name, role in NAVIGATION if self.may(role)],
            "is_open": self.context.settings.auth in {(), ("none",)},
        }


def find_sessions(request: Request) -> Sessions:
    """Return what finds the sessions of this program."""
    ui: Ui = request.app.state.ui
    return ui.sessions


async def open_page(request: Request) -> Page:
    """Return the page of a request, whoever sends it."""
    found: Session | None = getattr(request.state, "session", None)
    if found is None:
        found = await find_sessions(request).find(request)
        request.state.session = found
    return Page(request, request.app.state.context, found, found.caller)


def visit(role: Role) -> Any:
    """Return the dependency that provides the :class:`Page` for a visitor with this role.

    A request that may change something must come from a form of the visitor's own session.
    """

    async def find(request: Request) -> AsyncIterator[Page]:
        page = await open_page(request)
        if page.caller is None:
            raise SignInError
        if request.method not in _READING:
            await find_sessions(request).check_form(request, page.session)
        check_role(page.caller, role)
        with page.context.turns.taken(str(page.caller.name)):
            yield page

    return params.Depends(find, scope="function")


class PageRoute(APIRoute):
    """A path whose every answer is a page, errors included."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, with the headers and errors of a page."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except SignInError:
                response = _lead_to_sign_in(request)
            except Exception as error:
                response = await show_error(request, error)
            session: Session | None = getattr(request.state, "session", None)
            if session is not None and session.is_new and "set-cookie" not in response.headers:
                find_sessions(request).keep(request, response, session.secret)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer


class PageRouter(APIRouter):
    """A router of pages; each module of pages has one."""

    def __init__(self, *, prefix: str = "") -> None:
        super().__init__(
            prefix=prefix, route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse
        )


async def show_error(request: Request, error: Exception) -> Response:
    """Return the page of an error: the words of the engine's own, and of no other.

    htmx asks for parts only; it gets the words alone, which a form shows (status 422) and the script shows as a banner otherwise.
    """
    status, text, headers = judge(request, error)
    page = await open_page(request)
    if page.is_fragment and request.method not in _READING and HTTPStatus.BAD_REQUEST <= status < REFUSED + 8:
        if status in {HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED}:
            return await page.render("_words.html", status, words=text)
        return await page.render("_words.html", REFUSED, words=text)
    if page.is_fragment:
        answer = await page.render("_words.html", status, words=text)
    else:
        # A conflict is looked at there; a process that was not found has no page.
        process_id = request.path_params.get("process_id") if status == HTTPStatus.CONFLICT else None
        answer = await page.render("error.html", status, status=HTTPStatus(status), words=text, process_id=process_id)
    answer.headers.update(headers)
    return answer


def judge(request: Request, error: Exception) -> tuple[int, str, Mapping[str, str]]:
    """Return status, words and headers of an error."""
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail), error.headers or {}
    if isinstance(error, RequestValidationError):
        # A person has changed an address, or the form has a bug; what was sent is not repeated.
        return HTTPStatus.NOT_FOUND, "there is no such page: a part of its address is not what it must be", {}
    if isinstance(error, ServerUnavailableError):
        return HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"retry-after": RETRY_AFTER}
    if isinstance(error, RequestError):
        answer = describe(error)
        return answer.status_code, str(error), {}
    answer = answer_defect(request.scope, error) if not isinstance(error, OrchestratorError) else describe(error)
    is_defect = answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    text = "this has failed; the program's log says why" if is_defect else str(from_json(bytes(answer.body))["detail"])
    return answer.status_code, text, {}


def _lead_to_sign_in(request: Request) -> Response:
    """Return the answer to a visitor who must sign in, after which the page that was open, or was wanted, is shown."""
    prefix = prefix_of(request)
    current = request.headers.get("hx-current-url") or request.headers.get("referer") or ""
    parts = urlsplit(current)
    before = (parts.path.removeprefix(prefix) + (f"?{parts.query}" if parts.query else "")) if current else ""
    is_plain_visit = request.method in _READING and not _is_fragment(request)
    wanted = safe_return(own_path(request) if is_plain_visit else before)
    address = make_link(prefix, "/login", {"return_to": wanted})
    if "text/event-stream" in request.headers.get("accept", ""):
        return Response(status_code=HTTPStatus.UNAUTHORIZED)
    if _is_fragment(request):
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"hx-redirect": address})
    return RedirectResponse(address, HTTPStatus.FOUND if request.method in _READING else HTTPStatus.SEE_OTHER)


def _is_fragment(request: Request) -> bool:
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-history-restore-request") != "true"


def _is_below(path: str, place: str) -> bool:
    return path in ("", "/") if not place else path == place or path.startswith(f"{place}/")
