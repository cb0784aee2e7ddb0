"""The files of the pages: templates, one style sheet, htmx and a small script; all of them from this package."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

MEDIA_TYPES: Final = {
    "ui.css": "text/css; charset=utf-8",
    "ui.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files that browsers load."""

_FOLDER: Final = files(__package__) / "assets"
_BODIES: Final = {name: (_FOLDER / name).read_bytes() for name in MEDIA_TYPES}
VERSIONS: Final = {name: sha256(body).hexdigest()[:12] for name, body in _BODIES.items()}
"""What stands in the address of a file: another content has another address, so browsers may keep it for ever."""

_KEPT: Final = "public, max-age=31536000, immutable"


def make_environment() -> Environment:
    """Return what renders the templates. A name that is missing is an error."""
    return Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def send_asset(name: str) -> Response | None:
    """Return a file; ``None`` when there is no such one."""
    body = _BODIES.get(name)
    if body is None:
        return None
    return Response(body, media_type=MEDIA_TYPES[name], headers={"cache-control": _KEPT})
