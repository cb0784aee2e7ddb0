"""Draw a page of a form and do what a browser does with it: collect what it would send."""

from __future__ import annotations

from datetime import date, datetime
from enum import Enum
from html.parser import HTMLParser
from typing import Annotated, Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, Field, SecretStr, create_model
from pydantic_forms.core import page_schema
from pydantic_forms.types import strEnum
from pydantic_forms.validators import (
    Accept,
    Choice,
    Divider,
    Hidden,
    Label,
    LongText,
    Timestamp,
    callout,
    choice_list,
    markdown,
    migration_summary,
    read_only_field,
    read_only_list,
    timestamp,
)

from orchestrator.api.ui.forms.fields import Form, read_form
from orchestrator.api.ui.forms.page import Page
from orchestrator.api.ui.forms.reading import Posted
from orchestrator.forms import FormPage

EVIL = "<img src=x onerror=alert(1)>\"'><b hx-get=/ui hx-trigger=load>"


class Speed(Choice):
    SLOW = "1000", "1 Gbit/s"
    FAST = "10000", "10 Gbit/s"


class Plain(strEnum):
    A = "a"
    B = "b"


class Number(Enum):
    ONE = 1
    TWO = 2


class Port(BaseModel):
    name: str
    vlan: int = Field(5, ge=1, le=4094)
    tagged: bool = False


class Node(BaseModel):
    ports: list[Port] = []
    next: Node | None = None


def form_of(**fields: Any) -> tuple[type[FormPage], Form]:
    """Return a page with these fields, and how it is drawn."""
    page = cast("type[FormPage]", create_model("Page", __base__=FormPage, **fields))
    return page, read_form(page_schema(page))


EVERYTHING: Any = {
    "text": (str, Field(..., title=EVIL, description=EVIL)),
    "long": (LongText, ...),
    "number": (int, Field(3, ge=1, le=9)),
    "at_least": (int, Field(3, ge=1)),
    "at_most": (float, Field(3, le=9)),
    "real": (float, ...),
    "yes": (bool, True),
    "maybe": (bool | None, None),
    "speed": (Speed, ...),
    "preset": (Speed, Speed.FAST),
    "optional": (Speed | None, None),
    "radio": (Annotated[Speed | None, Field(json_schema_extra={"format": "radio"})], None),
    "some": (choice_list(Speed), ...),
    "accepted": (Accept, ...),
    "day": (date, ...),
    "at": (Timestamp | None, None),
    "on": (timestamp(show_time_select=False), ...),
    "names": (list[str], ["a", "b"]),
    "flags": (list[bool], [True, False]),
    "ports": (list[Port], ...),
    "port": (Port | None, None),
    "node": (Node, ...),
    "extra": (dict[str, Any], {}),
    "secret": (SecretStr | None, None),
    "email": (Annotated[str, Field(json_schema_extra={"format": "email"})], ""),
    "label": (Label, EVIL),
    "line": (Divider, ...),
    "hidden": (Hidden, "k"),
    "box": (callout(header=EVIL, message=EVIL), ...),
    "words": (markdown(content=EVIL), ...),
    "changes": (
        migration_summary({"headers": ["a", EVIL], "labels": ["l", "m"], "columns": [["1", EVIL], ["2"]]}),
        ...,
    ),
    "fixed": (read_only_field(EVIL), ...),
    "fixed_list": (read_only_list(["a", EVIL]), ...),
    "one_day": (datetime, ...),
}
"""A page with a field of every kind, hostile texts in it."""

_ENVIRONMENT = Environment(loader=PackageLoader("orchestrator.api.ui"), autoescape=True, undefined=StrictUndefined)
_TEMPLATE = _ENVIRONMENT.from_string(
    '{% import "form_fields.html" as forms %}{{ forms.summary(page) }}{{ forms.fields(page) }}'
)
_VOID = {"input", "hr", "br", "meta", "link", "img"}


def draw_page(page: Page) -> str:
    """Return the controls of a page as HTML."""
    return _TEMPLATE.render(page=page)


class Browser(HTMLParser):
    """What a browser sees of a page.

    Attributes:
        sent: what it would send, by the names of controls.
        ids: the ids of elements, in order.
        labels: the ids that labels are for.
        described: the ids of texts that controls refer to.
        tags: every element's name and attributes.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sent: dict[str, list[str]] = {}
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.described: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self._select = ""
        self._options: list[tuple[str, bool]] = []
        self._area: str | None = None
        self._text = ""
        self.feed(html)
        self.close()
        assert self._open == [], "elements are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take what an element says."""
        found = {name: value or "" for name, value in attrs}
        assert len(found) == len(attrs), "an attribute stands twice"
        self.tags.append((tag, found))
        if tag not in _VOID:
            self._open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "label":
            self.labels.append(found["for"])
        self.described += found.get("aria-describedby", "").split()
        name = found.get("name", "")
        if tag == "input" and (found.get("type", "text") not in {"checkbox", "radio"} or "checked" in found):
            self._send(name, found.get("value", "on"))
        elif tag == "select":
            self._select, self._options = name, []
        elif tag == "option":
            self._options.append((found.get("value", ""), "selected" in found))
        elif tag == "textarea":
            self._area, self._text = name, ""

    def handle_data(self, data: str) -> None:
        """Take the text of a text area."""
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        """Take what a control has, now that it is known."""
        assert self._open.pop() == tag
        if tag == "select" and self._options:
            chosen = [value for value, is_selected in self._options if is_selected]
            self._send(self._select, chosen[-1] if chosen else self._options[0][0])
        elif tag == "textarea":
            # The first end of line belongs to the tag.
            self._send(self._area or "", self._text.removeprefix("\n").replace("\n", "\r\n"))

    def _send(self, name: str, value: str) -> None:
        if name:
            self.sent.setdefault(name, []).append(value)

    @property
    def posted(self) -> Posted:
        """What it would send."""
        return Posted(self.sent)
