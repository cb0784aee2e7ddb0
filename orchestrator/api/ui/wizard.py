"""Fill in a form page by page, by plain posts: each brings the pages before it, and all are checked again every time.

Nothing is kept between two posts, so two tabs and the browser's own way back do no harm. What was written is never lost: a page
that does not fit is shown again as it was sent, with the problems at their fields.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.responses import Response

from orchestrator.api.problems import ROOT, status_of
from orchestrator.api.ui.forms.fields import Form, Value, read_form
from orchestrator.api.ui.forms.page import build_page
from orchestrator.api.ui.forms.reading import ADD, Posted, read_values, write_json
from orchestrator.api.ui.page import REFUSED, Page, judge
from orchestrator.api.ui.sessions import CSRF_FIELD
from orchestrator.errors import DefinitionError, FormIncompleteError, InvalidInputError, RequestError
from orchestrator.types import State

PAGES, AHEAD, KEY, SEEN, BACK = "_pages", "_ahead", "_key", "_seen", "_back"
"""What the form has beside its fields: the pages before it, those after it that were filled in before the way back, what makes
repeating it harmless, the entry of the log or the edition that it belongs to, and the button that leads back."""

MAX_KEY: Final = 100

_LANGUAGE: Final = re.compile(r"(?:^|,)\s*([A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*)")
_MAX_LANGUAGES: Final = 100
"""Characters of what a browser says of its languages that are read."""

NOTHING: Final = Form("", "", ())
"""The page of a form that asks for nothing."""


@dataclass(frozen=True, slots=True)
class Sending:
    """What a complete form is sent with; ``seen`` is what the form was about when it was opened."""

    key: str
    seen: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """A page, and what was filled in before and after it.

    Args:
        values: of the page; ``None`` for its defaults.
        added: the list that has just got another row.
    """

    asked: FormIncompleteError | None
    before: tuple[State, ...]
    ahead: tuple[Mapping[str, Value], ...] = ()
    values: Mapping[str, Value] | None = None
    problems: Sequence[Mapping[str, Any]] = ()
    added: str | None = None
    status: int = HTTPStatus.OK

    @property
    def form(self) -> Form:
        """The page's fields."""
        return NOTHING if self.asked is None else read_form(self.asked.form)


@dataclass(frozen=True, slots=True)
class Wizard:
    """A form and what it is for.

    Args:
        ask: returns the page after these; ``None`` when these are all. It changes nothing.
        send: takes all pages and returns the answer; raises what ``ask`` does, and refusals.
        heading, button: of the page.
        cancel: the page below ``/ui`` to which giving up leads.
    """

    page: Page
    ask: Callable[[Sequence[State]], Awaitable[FormIncompleteError | None]]
    send: Callable[[Sequence[State], Sending], Awaitable[Response]]
    heading: str
    explanation: str
    button: str
    cancel: str

    async def open(self, before: Sequence[State] = ()) -> Response:
        """Show the page after these."""
        place = await self._find(tuple(before))
        sequence = None if place.asked is None else place.asked.sequence
        return await self._show(place, Sending(str(uuid4()), sequence))

    async def take(self) -> Response:
        """Take a page that was posted: show it again, or the next one, or send the form.

        When that fails, for whatever reason, what was sent is kept in a page that sends it again.
        """
        sent = await self.page.form()
        posted = Posted({name: [one for one in sent.getlist(name) if isinstance(one, str)] for name in sent})
        try:
            return await self._take(posted)
        except Exception as error:
            status, words, headers = judge(self.page.request, error)
            kept = [(name, text) for name, texts in posted.texts.items() if name != CSRF_FIELD for text in texts]
            answer = await self.page.render("send_again.html", status, wizard=self, words=words, kept=kept)
            answer.headers.update(headers)
            return answer

    async def _take(self, posted: Posted) -> Response:
        before, ahead = _read_pages(posted.first(PAGES)), _read_pages(posted.first(AHEAD))
        sending = Sending((posted.first(KEY) or str(uuid4()))[:MAX_KEY], _read_number(posted.first(SEEN)))
        place = replace(await self._find(before), ahead=ahead)
        if place.problems:
            return await self._show(place, sending)
        values = read_values(place.form.fields, posted)
        if BACK in posted.texts and before:
            earlier = await self._find(before[:-1])
            if not earlier.problems:
                earlier = replace(earlier, values=before[-1], ahead=(write_json(values), *ahead))
            return await self._show(earlier, sending)
        if posted.is_edit:
            return await self._show(replace(place, values=values, added=posted.first(ADD)), sending)
        return await self._send(replace(place, values=values), sending)

    async def _send(self, place: Place, sending: Sending) -> Response:
        values = place.values or {}
        pages = (*place.before, write_json(values)) if place.asked is not None else place.before
        try:
            return await self.send(pages, sending)
        except FormIncompleteError as error:
            filled = place.ahead[0] if place.ahead else None
            following = Place(error, pages, place.ahead[1:], filled)
            return await self._show(following, sending)
        except InvalidInputError as error:
            return await self._show(replace(place, problems=_list_problems(error), status=REFUSED), sending)
        except (RequestError, DefinitionError) as error:
            problem = {"loc": [ROOT], "msg": str(error)}
            return await self._show(replace(place, problems=[problem], status=status_of(error)), sending)

    async def _find(self, before: tuple[State, ...]) -> Place:
        """Return the page after these; or the first of these that does not fit any more, with what is wrong."""
        try:
            return Place(await self.ask(before), before)
        except InvalidInputError as error:
            if not before:
                raise
            earlier = await self._find(before[:-1])
            if earlier.problems:
                return earlier
            return replace(earlier, values=before[-1], problems=_list_problems(error), status=REFUSED)

    async def _show(self, place: Place, sending: Sending) -> Response:
        labels = await asyncio.to_thread(_find_labels, self.page)
        form = NOTHING if place.asked is None else read_form(place.asked.form, labels)
        meta = (place.asked.meta or {}) if place.asked is not None else {"hasNext": False}
        return await self.page.render(
            "wizard.html",
            place.status,
            wizard=self,
            drawn=build_page(form, place.values, place.problems, added=place.added),
            number=len(place.before) + 1,
            button="Next" if meta.get("hasNext", True) else self.button,
            hidden={
                PAGES: json.dumps(place.before),
                AHEAD: json.dumps(place.ahead),
                KEY: sending.key,
                SEEN: "" if sending.seen is None else str(sending.seen),
            },
        )


def _find_labels(page: Page) -> Mapping[str, str]:
    """Return the translations of labels into the first of the visitor's languages that has some."""
    for tag in _LANGUAGE.findall(page.request.headers.get("accept-language", "")[:_MAX_LANGUAGES]):
        found: Mapping[str, str] = page.context.translations.read(tag)["forms"]["fields"]
        if found:
            return found
    return {}


def _list_problems(error: InvalidInputError) -> Sequence[Mapping[str, Any]]:
    return error.errors or [{"loc": [ROOT], "msg": str(error)}]


def _read_pages(text: str | None) -> tuple[State, ...]:
    """Return the pages in a field of the form, which only a browser that was tampered with fills otherwise.

    Raises:
        HTTPException: 400.
    """
    try:
        found = json.loads(text or "[]")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the form has lost its earlier pages: begin again")
    return tuple(found)


def _read_number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < MAX_KEY else None
