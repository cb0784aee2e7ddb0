"""The page on which people read the OpenAPI document and try paths."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from typing import Final

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_ASSETS: Final = "https://cdn.jsdelivr.net"
_INLINE: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)


async def make_docs_page(title: str, openapi_path: str, request: Request) -> Response:
    """Return the page; its policy allows its own script, by its hash, and Swagger UI from where it is published."""
    url = f"{request.scope.get('root_path', '')}{openapi_path}"
    page = get_swagger_ui_html(openapi_url=url, title=title, swagger_favicon_url="data:,")
    body = bytes(page.body).decode()
    hashes = " ".join(
        f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'" for script in _INLINE.findall(body)
    )
    policy = (
        f"default-src 'none'; script-src {_ASSETS} {hashes}; style-src {_ASSETS} 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(body, headers={"content-security-policy": policy})
