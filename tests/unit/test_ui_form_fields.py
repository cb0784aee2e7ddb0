"""Pages of forms in our own user interface: from the JSON schema to controls, and from what a browser sends to values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import pytest
from pydantic import Field, SecretStr
from pydantic_forms.core import page_schema
from pydantic_forms.validators import (
    Accept,
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
    unique_conlist,
)

from orchestrator.api.ui.forms.fields import MISSING, Form, Kind, read_form
from orchestrator.api.ui.forms.page import build_page
from orchestrator.api.ui.forms.reading import ADD, REMOVE, ROW, SET, Posted, read_values, write_json
from tests.unit.form_pages import Browser, Node, Number, Plain, Port, Speed, draw_page, form_of


def send(form: Form, **texts: str | list[str]) -> dict[str, Any]:
    """Return what is read when a browser sends these texts."""
    posted = {f"f.{name}": [value] if isinstance(value, str) else value for name, value in texts.items()}
    return write_json(read_values(form.fields, Posted(posted)))


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (str, Kind.TEXT),
        (LongText, Kind.LONG_TEXT),
        (SecretStr, Kind.PASSWORD),
        (UUID, Kind.TEXT),
        (datetime, Kind.TEXT),
        (date, Kind.DATE),
        (int, Kind.INTEGER),
        (float, Kind.NUMBER),
        (Decimal, Kind.NUMBER),
        (int | str, Kind.INTEGER),
        (bool, Kind.BOOLEAN),
        (Speed, Kind.CHOICE),
        (Plain, Kind.CHOICE),
        (Number, Kind.CHOICE),
        (Literal["x", "y"], Kind.CHOICE),
        (Annotated[Speed, Field(json_schema_extra={"format": "radio"})], Kind.RADIO),
        (Literal["x"], Kind.READ_ONLY),
        (choice_list(Speed), Kind.CHOICES),
        (Accept, Kind.ACCEPT),
        (Timestamp, Kind.TIMESTAMP),
        (list[str], Kind.LIST),
        (list[Port], Kind.LIST),
        (unique_conlist(str, min_items=1, max_items=3), Kind.LIST),
        (Port, Kind.MODEL),
        (dict[str, Any], Kind.JSON),
        (tuple[int, str], Kind.JSON),
        (Port | Node, Kind.JSON),
        (list[str] | str, Kind.JSON),
        (Any, Kind.JSON),
        (Label, Kind.LABEL),
        (Divider, Kind.DIVIDER),
        (Hidden, Kind.HIDDEN),
        (callout(header="H", message="M"), Kind.CALLOUT),
        (markdown(content="*x*"), Kind.MARKDOWN),
        (migration_summary({"headers": ["a"], "labels": ["l"], "columns": [["1"]]}), Kind.SUMMARY),
        (read_only_field("v"), Kind.READ_ONLY),
        (read_only_list(["a", "b"]), Kind.READ_ONLY),
    ],
)
def test_each_type_has_its_control(annotation: Any, kind: Kind) -> None:
    assert form_of(one=(annotation, ...))[1].fields[0].kind is kind


@pytest.mark.parametrize(
    "annotation", [str, int, date, Speed, Timestamp, list[str], Port, dict[str, Any], bool, choice_list(Speed)]
)
def test_a_type_that_may_be_none_has_the_same_control(annotation: Any) -> None:
    plain = form_of(one=(annotation, ...))[1].fields[0]
    optional = form_of(one=(annotation | None, None))[1].fields[0]
    assert (optional.kind, optional.is_nullable, optional.is_required) == (plain.kind, True, False)
    assert plain.is_required
    assert not plain.is_nullable


@pytest.mark.parametrize(
    ("annotation", "default", "sent", "value"),
    [
        (str, ..., "ams-1", "ams-1"),
        (str, ..., " a b ", " a b "),
        (str, ..., "", MISSING),
        (str, "x", "", ""),
        (str | None, "x", "", None),
        (LongText, ..., "a\r\nb", "a\nb"),
        (int, ..., " 007 ", 7),
        (int, ..., "-3", -3),
        (int, ..., "1_000", "1_000"),
        (int, ..., "1.5", "1.5"),
        (int, ..., "९", "९"),
        (int, ..., "9" * 400, "9" * 400),
        (int, ..., "", MISSING),
        (int, 5, "", ""),
        (int | None, 5, "", None),
        (int | str, ..., "12", 12),
        (int | str, ..., "x12", "x12"),
        (float, ..., "1.5", 1.5),
        (float, ..., "1e3", 1000.0),
        (float, ..., "3", 3),
        (float, ..., "nan", "nan"),
        (float, ..., "inf", "inf"),
        (float, ..., "1e999", "1e999"),
        (Decimal, ..., "0.10000000000000000000001", "0.10000000000000000000001"),
        (bool | None, None, "", None),
        (bool | None, None, "true", True),
        (bool | None, None, "false", False),
        (Speed, ..., "1000", "1000"),
        (Speed, ..., "", MISSING),
        (Speed, ..., "17", "17"),
        (Speed | None, None, "", None),
        (Number, ..., "2", 2),
        (Literal[1, 2], ..., "1", 1),
        (date, ..., "2026-01-31", "2026-01-31"),
        (Timestamp, ..., "2026-01-31T12:00", 1769860800),
        (Timestamp, ..., "2026-01-31T12:00:01", 1769860801),
        (Timestamp, ..., "soon", "soon"),
        (timestamp(show_time_select=False), ..., "2026-01-31", 1769817600),
        (dict[str, Any], ..., '{"a": [1]}', {"a": [1]}),
        (dict[str, Any], ..., "{a", "{a"),
        (dict[str, Any], ..., "NaN", "NaN"),
        (dict[str, Any], ..., "[" * 100_000, "[" * 100_000),
        (choice_list(Speed), ..., ["1000", "10000"], ["1000", "10000"]),
    ],
)
def test_a_text_becomes_a_value_or_stays_the_text(annotation: Any, default: Any, sent: Any, value: Any) -> None:
    found = send(form_of(one=(annotation, default))[1], one=sent)
    assert found == ({} if value is MISSING else {"one": value})


def test_what_only_says_something_and_what_cannot_be_changed_is_not_sent() -> None:
    _, form = form_of(
        label=(Label, ...),
        line=(Divider, ...),
        hidden=(Hidden, "k"),
        fixed=(read_only_field("v"), "v"),
        name=(str, ...),
    )
    assert send(form, label="x", line="x", hidden="evil", fixed="evil", name="n") == {"name": "n"}


def test_a_constant_without_a_default_is_sent() -> None:
    assert send(form_of(one=(Literal["x"], ...))[1]) == {"one": "x"}


def test_a_check_box_that_is_not_ticked_is_false_and_a_list_without_rows_is_empty() -> None:
    _, form = form_of(
        yes=(bool, True),
        ports=(list[str], ["a"]),
        some=(choice_list(Speed), ...),
        accepted=(Accept, ...),
        none=(Port | None, ...),
    )
    expected = {"yes": False, "ports": [], "some": [], "accepted": "INCOMPLETE", "none": None}
    assert send(form) == expected


def test_rows_are_read_in_order_without_those_that_are_empty() -> None:
    _, form = form_of(names=(list[str], ...), ports=(list[Port], ...))
    posted = {
        ROW: ["f.names.2", "f.names.0", "f.names.1", "f.names.x", "f.names.0", "f.ports.0"],
        "f.names.0": ["a"],
        "f.names.1": [""],
        "f.names.2": ["c"],
        "f.names.7": ["no row"],
        "f.ports.0.name": ["p"],
    }
    values = write_json(read_values(form.fields, Posted(posted)))
    assert values == {"names": ["c", "a"], "ports": [{"name": "p", "vlan": "", "tagged": False}]}


def test_rows_are_added_and_removed_and_the_others_keep_what_was_written() -> None:
    _, form = form_of(names=(list[str], ...))
    sent: dict[str, list[str]] = {ROW: ["f.names.0", "f.names.1"], "f.names.0": ["a"], "f.names.1": [""]}
    added = read_values(form.fields, Posted({**sent, ADD: ["f.names"]}))
    page = build_page(form, added, added="f.names")
    assert [row.text for row in page.inputs[0].inputs] == ["a", "", ""]
    assert [row.is_focused for row in page.inputs[0].inputs] == [False, False, True]
    removed = read_values(form.fields, Posted({**sent, REMOVE: ["f.names.0"]}))
    assert [row.text for row in build_page(form, removed).inputs[0].inputs] == [""]


def test_a_list_shows_as_many_rows_as_it_needs_and_no_more_than_it_may_have() -> None:
    _, form = form_of(names=(unique_conlist(str, min_items=2, max_items=3), ...))
    assert len(build_page(form).inputs[0].inputs) == 2
    assert build_page(form, {"names": ["a", "b"]}).inputs[0].can_add
    assert not build_page(form, {"names": ["a", "b", "c"]}).inputs[0].can_add


def test_an_optional_model_is_given_when_its_box_is_ticked() -> None:
    _, form = form_of(port=(Port | None, None))
    posted = {"f.port.name": ["p"], "f.port.vlan": ["7"]}
    assert read_values(form.fields, Posted(posted)) == {"port": None}
    assert read_values(form.fields, Posted({**posted, SET: ["f.port"]})) == {
        "port": {"name": "p", "vlan": 7, "tagged": False}
    }


def test_a_model_inside_of_itself_is_json_where_it_repeats() -> None:
    _, form = form_of(node=(Node, ...))
    ports, following = form.fields[0].fields
    assert ports.kind is Kind.LIST
    assert following.kind is Kind.JSON
    assert following.is_nullable


def test_names_with_dots_and_tildes_are_kept_apart() -> None:
    _, form = form_of(one=(str, Field(alias="a.b~c")), two=(Port, Field(alias="a")))
    page = build_page(form, {"a.b~c": "x", "a": {"name": "y"}})
    browser = Browser(draw_page(page))
    assert read_values(form.fields, browser.posted) == {"a.b~c": "x", "a": {"name": "y", "vlan": "", "tagged": False}}


def test_labels_are_titles_or_names_never_the_name_of_an_enumeration() -> None:
    _, form = form_of(node_name=(str, ...), speed=(Speed, ...), fast=(Speed | None, Field(None, title="How fast")))
    assert [one.label for one in form.fields] == ["Node Name", "Speed", "How fast"]
    assert read_form(cast("Any", {"title": "unknown"})).title == ""


def test_labels_may_be_translated() -> None:
    schema = page_schema(form_of(speed=(int, ...))[0])
    form = read_form(cast("Any", schema), {"speed": "Snelheid", "speed_info": "In Mbit/s"})
    assert (form.fields[0].label, form.fields[0].help) == ("Snelheid", "In Mbit/s")


def test_problems_stand_at_their_fields_and_all_others_above_the_form() -> None:
    _, form = form_of(name=(str, ...), ports=(list[Port], ...), either=(int | str, ...), tree=(dict[str, Any], {}))
    problems: list[Mapping[str, Any]] = [
        {"loc": ["name"], "msg": "too short"},
        {"loc": ["ports", "1", "vlan"], "msg": "too large"},
        {"loc": ["ports"], "msg": "too few"},
        {"loc": ["ports", "9"], "msg": "no such row"},
        {"loc": ["either", "int"], "msg": "no number"},
        {"loc": ["tree", "a", "0"], "msg": "wrong"},
        {"loc": ["__root__"], "msg": "the node is full"},
        {"loc": ["product"], "msg": "is retired"},
    ]
    page = build_page(form, {"name": "", "ports": [{}, {"vlan": 9999}]}, problems)
    name, ports, either, tree = page.inputs
    assert name.errors == ("too short",)
    assert ports.errors == ("too few", "9: no such row")
    assert ports.inputs[1].inputs[1].errors == ("too large",)
    assert ports.inputs[1].inputs[1].text == "9999"
    assert either.errors == ("no number",)
    assert tree.errors == ("a.0: wrong",)
    assert [one.text for one in page.summary[:2]] == ["the node is full", "product: is retired"]
    browser = Browser(draw_page(page))
    links = {found["href"].removeprefix("#") for tag, found in browser.tags if tag == "a"}
    assert links <= {*browser.ids}
    assert len(page.summary) == len(problems)
