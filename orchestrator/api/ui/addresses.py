"""Addresses of the pages: links, where to go after signing in, and who may send a form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote, urlencode, urlsplit

from starlette.requests import HTTPConnection

HOME: Final = "/ui"

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Unreserved characters, and of the others those that stand in the addresses of the pages.
_OWN: Final = re.compile(r"/ui(?:/[A-Za-z0-9._~%-]+)*/?(?:\?[A-Za-z0-9._~%+=&:,;*!|/@-]*)?(?:#[A-Za-z0-9._-]*)?")
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]|//|/\.\.?(?:/|$)")


def safe_return(address: str | None) -> str:
    """Return the page to show after signing in: ``address`` if it is one of the pages, else the first page.

    Whatever is not plainly one of ours is not repaired: a browser reads many spellings as another site.
    """
    if not address or len(address) > 2000 or not _OWN.fullmatch(address):  # noqa: PLR2004 - longer than any of ours
        return HOME
    path = unquote(unquote(address.partition("?")[0].partition("#")[0]))
    is_sign_in = path.startswith(("/ui/login", "/ui/logout", "/ui/oidc"))
    has_control = any(ord(one) < 32 or ord(one) == 127 for one in unquote(unquote(address)))  # noqa: PLR2004 - ASCII
    return HOME if is_sign_in or has_control or _UNSAFE.search(path) else address


def prefix_of(connection: HTTPConnection) -> str:
    """Return what a proxy puts before all paths."""
    return str(connection.scope.get("root_path", ""))


def own_path(connection: HTTPConnection) -> str:
    """Return the address of a request as :func:`safe_return` takes it, without what a proxy puts before it."""
    path = str(connection.scope["path"]).removeprefix(prefix_of(connection))
    query = connection.scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def make_link(prefix: str, path: str, query: Mapping[str, object]) -> str:
    """Return the address of a page.

    Args:
        path: below ``/ui``.
        query: values that are ``None`` or empty are left out; of a list each is a parameter.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        values: Iterable[object] = value if isinstance(value, list | tuple) else (value,)
        pairs += [(name, str(one)) for one in values if one is not None and one != ""]
    return f"{prefix}{HOME}{path}" + (f"?{urlencode(pairs)}" if pairs else "")


def is_tls(connection: HTTPConnection, public_url: str | None) -> bool:
    """Return whether clients reach the pages over TLS: by this connection, or at the proxy."""
    return connection.url.scheme == "https" or (public_url or "").startswith("https:")


def is_this_machine(connection: HTTPConnection) -> bool:
    """Return whether the browser calls the server by a name of its own machine: it then trusts the connection like TLS."""
    name, colon, port = connection.headers.get("host", "").rpartition(":")
    return (name if colon and port.isdecimal() else connection.headers.get("host", "")).lower() in _LOCAL


def is_from_own_page(connection: HTTPConnection, public_url: str | None) -> bool | None:
    """Return whether a page of ours sends a request, by what the browser says; ``None`` when it says nothing."""
    headers = connection.headers
    origin = headers.get("origin")
    if origin is not None:
        own = {f"{scheme}://{headers.get('host')}" for scheme in ("http", "https")}
        if public_url is not None:
            parts = urlsplit(public_url)
            own.add(f"{parts.scheme}://{parts.netloc}")
        return origin in own
    site = headers.get("sec-fetch-site")
    return None if site is None else site == "same-origin"
