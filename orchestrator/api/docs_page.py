"""The page on which people read the OpenAPI document and try paths, and the files that it loads: all of them from here."""

from __future__ import annotations

import base64
import re
from functools import partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

SCRIPT: Final = "swagger-ui-bundle.js"
STYLE: Final = "swagger-ui.css"

_FOLDER: Final = Path(str(files("fastapi_offline"))) / "static"
"""Swagger UI as its publisher makes it; the package holds nothing else that is used."""

_INLINE: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def install_docs_page(app: FastAPI, path: str, openapi_path: str) -> None:
    """Make an application serve the page and its files."""
    app.add_route(path, partial(_make_page, app.title, path, openapi_path), include_in_schema=False)
    for name in (SCRIPT, STYLE):
        app.add_route(f"{path}/{name}", partial(_send_file, name), include_in_schema=False)


async def _make_page(title: str, path: str, openapi_path: str, request: Request) -> Response:
    """Return the page. Its policy allows one script of its own, by its hash, and what this program serves."""
    prefix = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{prefix}{openapi_path}",
        title=title,
        swagger_js_url=f"{prefix}{path}/{SCRIPT}",
        swagger_css_url=f"{prefix}{path}/{STYLE}",
        swagger_favicon_url="data:,",
    )
    body = bytes(page.body).decode()
    hashes = " ".join(
        f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'" for script in _INLINE.findall(body)
    )
    policy = (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(body, headers={"content-security-policy": policy})


async def _send_file(name: str, request: Request) -> Response:
    del request
    # Another version has another tag; until then a browser need not load it twice.
    return FileResponse(_FOLDER / name, headers={"cache-control": "public, max-age=3600"})
