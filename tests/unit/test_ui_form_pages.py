"""Whole pages of forms in our own user interface: sound HTML, inert texts, and nothing lost between two drawings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.api.ui.forms.fields import MISSING, read_form
from orchestrator.api.ui.forms.page import build_page
from orchestrator.api.ui.forms.reading import ADD, REMOVE, ROW, SET, Posted, read_values, write_json
from tests.unit.form_pages import EVERYTHING, EVIL, Browser, draw_page, form_of


@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_page_with_every_kind_is_sound_html_in_which_texts_are_inert(is_wrong: bool) -> None:
    _, form = form_of(**EVERYTHING)
    problems: list[Mapping[str, Any]] = [{"loc": [one.name], "msg": EVIL} for one in form.fields] if is_wrong else []
    page = build_page(
        form,
        {"text": EVIL, "names": [EVIL], "ports": [{"name": EVIL}], "radio": EVIL, "speed": EVIL} if is_wrong else None,
        problems,
    )
    html = draw_page(page)
    browser = Browser(html)
    assert len(browser.ids) == len({*browser.ids}), "an id stands twice"
    assert {*browser.labels} <= {*browser.ids}
    assert {*browser.described} <= {*browser.ids}
    labelled = {*browser.labels}
    controls = [(tag, found) for tag, found in browser.tags if tag in {"input", "select", "textarea"}]
    assert [found for _, found in controls if found.get("type") != "hidden" and found["id"] not in labelled] == []
    for tag, found in browser.tags:
        assert tag not in {"img", "script", "b"}
        assert not [name for name in found if name.startswith(("on", "hx-", "style"))]
    links = {found["href"].removeprefix("#") for tag, found in browser.tags if tag == "a"}
    assert links <= {*browser.ids}
    if is_wrong:
        assert EVIL in browser.sent["f.text"]
        assert "f.ports.0.name" in browser.sent


def test_the_first_page_as_it_stands_gives_the_defaults() -> None:
    model, form = form_of(**{name: one for name, one in EVERYTHING.items() if name != "text" and one[1] is not ...})
    browser = Browser(draw_page(build_page(form)))
    sent = write_json(read_values(form.fields, browser.posted))
    assert model(**sent).model_dump() == model().model_dump()


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\0"), min_size=1),
        "long": st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\0"), min_size=1),
        "number": st.integers(1, 9) | st.text("ab.", min_size=1),
        "real": st.floats(allow_nan=False, allow_infinity=False),
        "yes": st.booleans(),
        "maybe": st.none() | st.booleans(),
        "speed": st.sampled_from(["1000", "10000"]),
        "optional": st.none() | st.sampled_from(["1000", "10000"]),
        "some": st.sampled_from([[], ["1000"], ["10000"], ["1000", "10000"]]),
        "at": st.none() | st.integers(0, 4_000_000_000),
        "names": st.lists(st.text("abc\"'<&", min_size=1), max_size=4),
        "flags": st.lists(st.booleans(), max_size=4),
        "ports": st.lists(
            st.fixed_dictionaries(
                {"name": st.text("ab<&", min_size=1), "vlan": st.integers(1, 4094), "tagged": st.booleans()}
            ),
            max_size=3,
        ),
        "port": st.none()
        | st.fixed_dictionaries(
            {"name": st.text("ab", min_size=1), "vlan": st.integers(1, 9), "tagged": st.booleans()}
        ),
        "extra": st.dictionaries(
            st.text("ab"),
            st.recursive(st.none() | st.integers() | st.text("ab1 "), st.lists),
            max_size=3,
        ),
        "secret": st.none() | st.text("ab", min_size=1),
    },
)


MODEL, FORM = form_of(**EVERYTHING)


@given(VALUES)
def test_what_was_filled_in_is_shown_and_read_again_as_it_was(values: dict[str, Any]) -> None:
    # So a page that is drawn again with problems loses nothing of it.
    browser = Browser(draw_page(build_page(FORM, values)))
    again = write_json(read_values(FORM.fields, browser.posted))
    assert {name: again.get(name, MISSING) for name in values} == values


CONTROLS = [*(f"f.{name}" for name in EVERYTHING), ROW, SET, ADD, REMOVE, "f.ports.0.vlan"]


@given(st.dictionaries(st.sampled_from(CONTROLS), st.lists(st.text(), min_size=1, max_size=3)))
def test_nothing_that_is_sent_breaks_a_page(texts: dict[str, list[str]]) -> None:
    posted = Posted({**texts, ROW: [*texts.get(ROW, []), "f.ports.0"]})
    values = read_values(FORM.fields, posted)
    problems: list[Any] = []
    try:
        MODEL(**write_json(values))
    except ValidationError as error:
        problems = [{"loc": one["loc"], "msg": one["msg"]} for one in error.errors()]
    Browser(draw_page(build_page(FORM, values, problems)))


def test_a_choice_that_takes_others_has_a_line_for_them_and_keeps_what_stands_there() -> None:
    schema = {
        "properties": {"node": {"type": "string", "enum": ["a", "b"], "acceptsOthers": True}},
        "required": ["node"],
    }
    form = read_form(cast("Any", schema))
    browser = Browser(draw_page(build_page(form, {"node": "c"})))
    assert browser.sent["f.node"] == [""]
    assert browser.sent["f.node~other"] == ["c"]
    assert read_values(form.fields, browser.posted) == {"node": "c"}
    chosen = Browser(draw_page(build_page(form, {"node": "b"})))
    assert read_values(form.fields, chosen.posted) == {"node": "b"}
