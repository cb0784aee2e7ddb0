"""What the command line makes of logs, forms, foreign texts and errors, without servers."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import typer

from orchestrator.cli.context import CliContext, execute, explain
from orchestrator.cli.forms import example, fields, type_of
from orchestrator.cli.options import read_changes, read_pages
from orchestrator.cli.output import Output, clean
from orchestrator.cli.render import changes, when
from orchestrator.errors import (
    ConfigurationError,
    EnginePausedError,
    InvalidInputError,
    NotFoundError,
    RequestError,
    WorkflowNotUsableError,
)
from orchestrator.text import format_span
from tests.unit.log_entries import entry


@pytest.mark.parametrize("hidden", ["\x1b", "\x9b", "\u202e", "\x00", "\x7f", "\u2066", "\ud800"])
def test_control_characters_of_others_never_reach_a_terminal(hidden: str) -> None:
    assert hidden not in clean(f"a{hidden}b")
    assert hidden not in clean(f"a{hidden}b", lines=True)


def test_a_command_whose_reader_has_gone_ends_with_1_and_keeps_its_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def body(context: CliContext) -> None:
        context.output.line("one line")

    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        with pytest.raises(typer.Exit) as ended:
            execute(body, as_json=False, needs_settings=False)
        os.write(2, b"still heard")
    assert ended.value.exit_code == 1
    assert "still heard" in capfd.readouterr().err


def test_json_shows_control_characters_as_escapes_that_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", written)
    value = {"name": "a\x1bb\x9bc\u202ed é"}
    Output(as_json=True).document(value)
    written.seek(0)
    text = written.read()
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("zone", "moment", "shown"),
    [
        ("UTC-10", datetime(9999, 12, 31, 23, tzinfo=UTC), "9999-12-31 23:00:00+00:00"),
        ("UTC+10", datetime(1, 1, 1, tzinfo=UTC), "0001-01-01 00:00:00+00:00"),
        ("UTC-2", datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01 02:00:00"),
    ],
)
def test_a_time_at_the_end_of_the_calendar_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, zone: str, moment: datetime, shown: str
) -> None:
    """An end date of 9999-12-31 means that there is none; in zones east of UTC it has no local time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert when(moment) == shown
    time.tzset()


def test_square_brackets_of_others_are_printed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    output = Output(as_json=False)
    output.line("[bold]x[/bold] :smile:")
    output.table(("[a]",), [("[/b]",)])
    assert "[bold]x[/bold] :smile:" in written.getvalue()
    assert "[/b]" in written.getvalue()


def test_changes_are_cut_to_a_line() -> None:
    told = changes(entry(1, "One", 1, delta={f"k{n}": "x" * 1000 for n in range(100)}, removed="gone"))
    assert len(told) <= 160
    assert "\n" not in told


def test_models_in_the_state_are_reported_briefly_and_what_the_engine_keeps_there_not_at_all() -> None:
    node = {"subscription_id": "6472a5b5-29ed", "product": "Site", "description": "", "status": "active", "version": 3}
    block = {"subscription_instance_id": "da4125ae-c49e", "owner_subscription_id": "6472a5b5-29ed", "name": "Port"}
    delta = {"__old_subscriptions__": {"6472a5b5-29ed": {"note": None}}, "subscription": node, "port": block, "vlan": 7}
    assert changes(entry(1, "One", 1, delta=delta)) == (
        "subscription=subscription 6472a5b5 (Site, active) port=block da4125ae (Port) vlan=7"
    )


FORM: dict[str, Any] = {
    "$defs": {"Colour": {"enum": ["red", "blue"], "type": "string", "title": "Colour"}},
    "properties": {
        "colour": {"$ref": "#/$defs/Colour"},
        "size": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "ids": {"type": "array", "items": {"type": "string", "format": "uuid"}},
        "kind": {"const": "x"},
    },
    "required": ["colour", "ids"],
}


def test_the_fields_of_a_form_are_shown_with_labels() -> None:
    told = {name: type_of(field, FORM) for name, field in fields(FORM).items()}
    assert told == {"colour": '"red" | "blue"', "size": "integer | null", "ids": "list of uuid", "kind": '"x"'}
    assert example(FORM) == '{"colour": …, "ids": …}'
    assert example({"properties": {"size": {"type": "integer", "default": 1}}}) == "{}"


@pytest.mark.parametrize("form", [None, [], {}, {"properties": None}, {"properties": {"a": {"$ref": "#/$defs/None"}}}])
def test_an_odd_schema_is_no_reason_to_fail(form: object) -> None:
    assert example(form).startswith("{")  # type: ignore[arg-type]  # whatever an author's form makes
    if isinstance(form, dict):
        assert all(type_of(field, form) for field in fields(form).values())


@pytest.mark.parametrize("text", ["x", "[]", "1", '{"a": NaN}', "@/there/is/none", "{'a': 1}"])
def test_an_input_that_is_no_json_object_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_pages([text])


def test_changes_are_key_and_json() -> None:
    assert read_changes(["a=1", 'b={"c": "d=e"}', 'e="f"']) == {"a": 1, "b": {"c": "d=e"}, "e": "f"}
    for wrong in ("a", "=1", "a=b"):
        with pytest.raises(typer.BadParameter):
            read_changes([wrong])


def test_errors_in_a_task_group_are_reported_once_each() -> None:
    same = [ConfigurationError("wrong url"), ConfigurationError("wrong url")]
    assert explain(ExceptionGroup("several", [ExceptionGroup("inner", same), ConfigurationError("and\nthis")])) == [
        "wrong url",
        "and this",
    ]


def test_a_defect_of_ours_keeps_its_traceback_even_beside_errors_of_others() -> None:
    assert explain(KeyError("x")) is None
    assert explain(ExceptionGroup("several", [ConfigurationError("x"), KeyError("x")])) is None


def test_a_refusal_lists_its_reasons() -> None:
    error = WorkflowNotUsableError("not now", [{"key": "subscription.not_in_sync", "id": "7"}])
    assert explain(error) == ["not now", "  • subscription.not_in_sync (id=7)"]


def test_reasons_that_the_text_names_already_are_not_repeated() -> None:
    error = InvalidInputError("wrong: name: too short", [{"loc": ("name",), "msg": "too short"}])
    assert explain(error) == ["wrong: name: too short"]


@pytest.mark.parametrize("kind", [InvalidInputError, NotFoundError, EnginePausedError])
def test_a_refusal_whose_only_reason_is_its_own_key_is_one_line(kind: type[RequestError]) -> None:
    assert explain(kind("refused")) == ["refused"]


def test_a_database_without_our_tables_is_reported_as_such() -> None:
    lines = explain(asyncpg.UndefinedTableError('relation "processes" does not exist'))
    assert lines is not None
    assert "orchestrator db upgrade" in lines[0]


@pytest.mark.parametrize(
    ("span", "told"),
    [
        (0, "0 s"),
        (0.0123, "0.012 s"),
        (5, "5 s"),
        (5.5, "5.5 s"),
        (12.4, "12 s"),
        (61, "1 min 01 s"),
        (3720, "1 h 02 min"),
    ],
)
def test_durations_are_shown_as_people_say_them(span: float, told: str) -> None:
    assert format_span(span) == told


@pytest.mark.parametrize("kind", [RuntimeError, NotImplementedError, OSError, FileNotFoundError, TimeoutError])
def test_an_error_of_our_own_is_not_blamed_on_a_server(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients of both servers raise these classes, too."""

    async def body(_: CliContext) -> None:
        raise kind("of ours")

    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql+asyncpg://u@127.0.0.1:1/x")
    monkeypatch.setenv("ORCHESTRATOR_AMQP_URL", "amqp://u@127.0.0.1:1/x")
    with pytest.raises(kind, match="of ours") as defect:
        execute(body)
    assert explain(defect.value) is None
