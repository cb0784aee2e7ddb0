"""Sign in to the pages and out: with an API key, or through the OIDC issuer."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final

import structlog
from fastapi import Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from orchestrator.api.authentication import Authenticator
from orchestrator.api.callers import find_authenticator
from orchestrator.api.ui.addresses import HOME, prefix_of, safe_return
from orchestrator.api.ui.oidc import VALID_FOR, Attempt, OidcSignIn, SignInRefusedError
from orchestrator.api.ui.page import Page, PageRouter, SignInError, find_sessions, open_page
from orchestrator.errors import UnauthenticatedError

logger = structlog.get_logger(__name__)

router = PageRouter()

Anybody = Annotated[Page, Depends(open_page)]
TheAuthenticator = Annotated[Authenticator, Depends(find_authenticator)]

_NOT_KEPT: Final = (
    "Signing in needs https, or a browser on the machine of the server: over plain http others could read along. Behind a proxy"
    " that speaks https, set ORCHESTRATOR_PUBLIC_URL."
)


@router.get("/login")
async def show_sign_in(page: Anybody, authenticator: TheAuthenticator, return_to: str = "") -> Response:
    """Show the ways to sign in."""
    return await _show(page, authenticator, safe_return(return_to), HTTPStatus.OK, None)


@router.post("/login")
async def sign_in(page: Anybody, authenticator: TheAuthenticator, request: Request) -> Response:
    """Sign in with an API key."""
    # Without a token of the form: there is no session yet, and two tabs may have opened this page at the same moment.
    find_sessions(request).check_origin(request, is_needed=True)
    form = await page.form()
    key, wanted = form.get("key"), form.get("return_to")
    address = safe_return(wanted if isinstance(wanted, str) else None)
    try:
        caller = await authenticator.check(key.strip() if isinstance(key, str) else "")
    except UnauthenticatedError as error:
        return await _show(page, authenticator, address, HTTPStatus.FORBIDDEN, str(error))
    if authenticator.is_open or not find_sessions(request).may_sign_in(request):
        return await _show(page, authenticator, address, HTTPStatus.FORBIDDEN, _NOT_KEPT)
    response = RedirectResponse(f"{prefix_of(request)}{address}", HTTPStatus.SEE_OTHER)
    await find_sessions(request).open(request, response, caller)
    logger.info("signed in to the pages", user=str(caller.name))
    return response


@router.post("/logout")
async def sign_out(page: Anybody, request: Request) -> Response:
    """Sign out, and show that page again."""
    sessions = find_sessions(request)
    if page.caller is None:
        raise SignInError
    await sessions.check_form(request, page.session)
    response = RedirectResponse(f"{prefix_of(request)}{HOME}/login", HTTPStatus.SEE_OTHER)
    await sessions.close(request, response, page.session)
    return response


@router.get("/oidc/start")
async def start_at_issuer(page: Anybody, request: Request, return_to: str = "") -> Response:
    """Lead the browser to the issuer."""
    sign_in = _find_oidc(request)
    if not find_sessions(request).may_sign_in(request):
        raise HTTPException(HTTPStatus.FORBIDDEN, _NOT_KEPT)
    address, attempt = await sign_in.begin(_callback_address(page), safe_return(return_to))
    response = RedirectResponse(address, HTTPStatus.FOUND)
    response.set_cookie(
        attempt.cookie,
        attempt.encode(),
        max_age=int(VALID_FOR),
        path="/",
        secure=True,
        httponly=True,
        samesite="lax",
    )
    return response


@router.get("/oidc/callback")
async def finish_at_issuer(page: Anybody, request: Request) -> Response:
    """Sign in whom the issuer sends back."""
    sign_in = _find_oidc(request)
    query = request.query_params
    attempt = Attempt.find(request.cookies, query.get("state", ""))
    if attempt is None:
        return await _refuse(page, "this browser has not begun it, or has ended it already", HOME)
    try:
        caller = await sign_in.finish(attempt, query, _callback_address(page))
    except SignInRefusedError as error:
        logger.info("sign-in refused", reason=str(error))
        response = await _refuse(page, str(error), attempt.return_to)
    else:
        response = RedirectResponse(f"{prefix_of(request)}{safe_return(attempt.return_to)}", HTTPStatus.SEE_OTHER)
        await find_sessions(request).open(request, response, caller)
        logger.info("signed in to the pages", user=str(caller.name))
    # An answer is taken once.
    response.delete_cookie(attempt.cookie, path="/", secure=True, httponly=True, samesite="lax")
    return response


def _find_oidc(request: Request) -> OidcSignIn:
    found: OidcSignIn | None = request.app.state.ui.oidc
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "nobody signs in through an issuer here: ORCHESTRATOR_OIDC_CLIENT_ID")
    return found


def _callback_address(page: Page) -> str:
    """Return where the issuer sends the browser back to: it must know this address."""
    public = page.context.settings.public_url
    url = page.request.url
    return f"{public or f'{url.scheme}://{url.netloc}'}{HOME}/oidc/callback"


async def _refuse(page: Page, words: str, return_to: str) -> Response:
    return await page.render(
        "start_again.html",
        HTTPStatus.FORBIDDEN,
        words=f"The sign-in was refused: {words}.",
        return_to=safe_return(return_to),
    )


async def _show(page: Page, authenticator: Authenticator, address: str, status: int, words: str | None) -> Response:
    if authenticator.is_open or (page.caller is not None and words is None):
        return RedirectResponse(f"{prefix_of(page.request)}{address}", HTTPStatus.SEE_OTHER)
    is_kept = find_sessions(page.request).may_sign_in(page.request)
    return await page.render(
        "login.html",
        status,
        return_to=address,
        takes_keys=authenticator.takes_keys,
        takes_issuer=page.context.settings.oidc_client_id is not None,
        issuer=page.context.settings.oidc_issuer,
        words=words if is_kept else _NOT_KEPT,
        is_kept=is_kept,
    )
