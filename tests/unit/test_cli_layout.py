"""What the command line prints in terminals of any width, and how it shows what a form offers."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any, Literal
from unittest import mock
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from pydantic_forms.validators import Choice, callout, choice_list, migration_summary

from orchestrator.cli.forms import choices, fields, show_form, type_of
from orchestrator.cli.output import Output
from orchestrator.forms import FormPage

IDS = [str(UUID(int=number << 96 | 7)) for number in range(1, 4)]
WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
CELLS = st.lists(st.one_of(WORDS, st.sampled_from(IDS)), max_size=12).map(" ".join)


def printed(width: int, show: Callable[[Output], None]) -> list[str]:
    """The lines of a terminal that is so wide."""
    written = io.StringIO()
    with mock.patch.object(sys, "stdout", written), mock.patch.dict(os.environ, {"COLUMNS": str(width)}):
        show(Output(as_json=False))
    return [line.rstrip() for line in written.getvalue().splitlines()]


@given(
    width=st.integers(36, 200),
    rows=st.lists(st.tuples(st.sampled_from(IDS), WORDS, CELLS, WORDS), min_size=1, max_size=4),
)
def test_a_table_never_breaks_a_word_and_shows_each_once(width: int, rows: list[tuple[str, str, str, str]]) -> None:
    """However narrow the terminal: words are names and ids, and people copy them."""
    columns = ("(id)", "(name)", "(prose)", "(last)")  # no generated word has a bracket
    lines = printed(width, lambda output: output.table(columns, rows, prose="(prose)"))
    told = [word for line in lines for word in line.split()]
    assert sorted(word for word in told if word not in columns) == sorted(
        word for row in rows for cell in row for word in cell.split()
    )
    assert [line.split()[0] for line in lines if line[0] not in " ("] == [row[0] for row in rows]


@given(width=st.integers(28, 200), text=CELLS, indent=st.integers(0, 8))
def test_prose_is_broken_between_words_only(width: int, text: str, indent: int) -> None:
    lines = printed(width, lambda output: output.prose(text, indent=indent))
    assert [word for line in lines for word in line.split()] == text.split()
    assert all(len(line) <= max(width, indent + 4 + 36) or len(line.split()) == 1 for line in lines)


def test_a_table_that_fits_is_a_table() -> None:
    rows = [(IDS[0], "Port", "a port"), (IDS[1], "Port 100G", "another")]
    assert printed(80, lambda output: output.table(("id", "product", "description"), rows, prose="description")) == [
        f"id{' ' * 34}  product    description",
        f"{IDS[0]}  Port       a port",
        f"{IDS[1]}  Port 100G  another",
    ]


def test_a_narrow_terminal_gets_one_record_per_block() -> None:
    rows = [(IDS[0], "Port", "active", "2030-01-01 12:00:00", "acme", "the port of acme in the far north")]
    columns = ("id", "product", "status", "created", "customer", "description")

    def shown(width: int) -> list[str]:
        return printed(width, lambda output: output.table(columns, rows, prose="description"))

    assert len(shown(200)) == 2
    assert shown(80) == [
        IDS[0],
        "    product Port  status active  created 2030-01-01 12:00:00  customer acme",
        "    the port of acme in the far north",
    ]
    assert shown(40) == [
        IDS[0],
        "    product Port  status active",
        "        created 2030-01-01 12:00:00",
        "        customer acme",
        "    the port of acme in the far north",
    ]


# Forms.


def offer(count: int) -> type[Choice]:
    made = Choice.__call__("SubscriptionChoice", {f"c{n}": (str(UUID(int=n)), f"node {n}") for n in range(count)})
    assert issubclass(made, Choice)
    return made


def page_with(annotation: Any) -> dict[str, Any]:
    made: type[FormPage] = type("Page", (FormPage,), {"__annotations__": {"node": annotation}})
    return made.model_json_schema()


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [(offer(2), "choice"), (choice_list(offer(2)), "list of choice"), (offer(2) | None, "choice | null")],
)
def test_choices_are_shown_by_their_labels_and_can_be_copied(annotation: Any, kind: str) -> None:
    lines = printed(80, lambda output: show_form(output, page_with(annotation)))
    assert lines[1].startswith(f"node   {kind}  required")
    assert "SubscriptionChoice" not in "\n".join(lines)
    assert lines[3:] == ["node can be:", f"    node 0 ({UUID(int=0)})", f"    node 1 ({UUID(int=1)})", ""]


def test_of_many_choices_some_are_shown_and_the_rest_is_counted() -> None:
    lines = printed(80, lambda output: show_form(output, page_with(offer(25))))
    assert [line for line in lines if line.startswith("    node")] == [
        f"    node {n} ({UUID(int=n)})" for n in range(20)
    ]
    assert "    and 5 more: --json shows all" in lines
    exactly = printed(80, lambda output: show_form(output, page_with(offer(20))))
    assert not any("more" in line for line in exactly)


def test_fields_with_the_same_choices_share_a_list() -> None:
    one = offer(2)
    made: type[FormPage] = type("Page", (FormPage,), {"__annotations__": {"left": one, "right": one | None}})
    lines = printed(80, lambda output: show_form(output, made.model_json_schema()))
    assert lines[4:6] == ["left, right can be:", f"    node 0 ({UUID(int=0)})"]
    assert len(lines) == 8


class Side(BaseModel):
    port: str = Field(description="of the router")
    vlans: list[int] = Field(default=[1])


class Tree(BaseModel):
    name: str
    below: list[Tree] = Field(default=[])


def test_the_fields_of_nested_models_are_shown_below_them() -> None:
    made: type[FormPage] = type(
        "Page",
        (FormPage,),
        {"__annotations__": {"left": Side, "others": list[Side], "maybe": Side | None, "tree": Tree}},
    )
    lines = printed(120, lambda output: show_form(output, made.model_json_schema()))
    for place in ("left.port", "others[].port", "maybe.port"):
        (line,) = [one for one in lines if one.startswith(f"{place} ")]
        assert "string" in line
        assert "required" in line
        assert "of the router" in line
    (line,) = [one for one in lines if one.startswith("left.vlans ")]
    assert "default [1]" in line
    depths = [one.split()[0].count(".below[]") for one in lines if one.startswith("tree.")]
    assert 1 <= max(depths) <= 4, "what holds itself has an end"


def test_a_summary_page_is_shown_with_its_content() -> None:
    summary = migration_summary(
        {"headers": ["now", "then"], "labels": ["speed", "vlan"], "columns": [["1G", 7], ["10G"]]}
    )
    note = callout(header="Mind the gap", message="Traffic stops.\nCall the customer.")
    made: type[FormPage] = type(
        "Page", (FormPage,), {"__annotations__": {"summary": summary, "note": note, "sure": bool}}
    )
    text = "\n".join(printed(100, lambda output: show_form(output, made.model_json_schema())))
    for words in (
        "now",
        "then",
        "speed",
        "1G",
        "10G",
        "vlan",
        "7",
        "Mind the gap",
        "Traffic stops.",
        "Call the customer.",
    ):
        assert words in text
    assert [line.split()[0] for line in text.splitlines() if "required" in line] == ["sure"]
    assert "note " not in text, "what asks for nothing is no field to fill in"


def test_a_long_summary_is_cut_and_an_odd_one_is_no_reason_to_fail() -> None:
    long = migration_summary({"headers": ["n"], "labels": [], "columns": [[str(n) for n in range(80)]]})
    lines = printed(80, lambda output: show_form(output, page_with(long)))
    assert "and 30 more: --json shows all" in lines
    odd = migration_summary({"headers": 7, "labels": None, "columns": ["x", [None, {"a": "\x1b[31m"}]]})  # type: ignore[typeddict-item,list-item]
    assert "\x1b" not in "\n".join(printed(80, lambda output: show_form(output, page_with(odd))))


def test_a_single_choice_is_shown_like_several() -> None:
    assert f"    node 0 ({UUID(int=0)})" in printed(80, lambda output: show_form(output, page_with(offer(1))))


def test_a_few_plain_values_stand_in_the_table_and_many_below_it() -> None:
    few = page_with(Literal["kind", "gruff"])
    assert type_of(fields(few)["node"], few) == '"kind" | "gruff"'
    assert choices(fields(few)["node"], few) == []
    many = page_with(Literal[tuple(f"value {n}" for n in range(30))])
    lines = printed(80, lambda output: show_form(output, many))
    assert "    value 19" in lines
    assert "    and 10 more: --json shows all" in lines


def test_a_label_of_another_person_cannot_write_to_the_terminal() -> None:
    evil = Choice.__call__("Evil", {"a": ("x", "red \x1b[31m\nand [bold]")})
    text = "\n".join(printed(80, lambda output: show_form(output, page_with(evil))))
    assert "\x1b" not in text
    assert "    red �[31m and [bold] (x)" in text
