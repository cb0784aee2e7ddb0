"""Put a page together for a template: each field with its value, its problems, and the ids by which they are tied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from orchestrator.api.ui.forms.fields import MISSING, SHOWN, Field, Form, Kind, Missing, Value
from orchestrator.api.ui.forms.reading import name_of, write_text
from orchestrator.types import JSON

Problem = tuple[tuple[str, ...], str]
"""The place of a problem, below what it is read for, and its words."""

_WITHOUT_CONTROL = SHOWN | {Kind.HIDDEN}
"""Nothing on the page has the id of such a field."""

ROOT = "__root__"
"""The place of a problem of the whole page."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, with what stands above them."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Input:
    """A field as it is drawn.

    Args:
        name: of the control.
        id: of the element that a problem leads to; those of its texts begin with it.
        inputs: the fields of a model, or the rows of a list.
        is_set: whether an optional model is given.
        is_focused: whether it was added just now.
    """

    field: Field
    name: str
    id: str
    value: Value
    errors: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()
    is_set: bool = True
    is_focused: bool = False

    @property
    def kind(self) -> str:
        """The kind of control."""
        return self.field.kind.value

    @property
    def text(self) -> str:
        """The value as text."""
        return write_text(self.field, self.value)

    @property
    def texts(self) -> tuple[str, ...]:
        """The values as texts, of a field that takes several."""
        values = self.value if isinstance(self.value, list) else []
        return tuple(write_text(self.field, one) for one in values)

    @property
    def other(self) -> str:
        """The value of an open choice that is none of those offered."""
        text = self.text
        return "" if any(option.text == text for option in self.field.options) else text

    @property
    def described_by(self) -> str:
        """The ids of the texts that describe the control."""
        parts = {"help": self.field.help, "hint": self.field.hint, "error": self.errors}
        return " ".join(f"{self.id}-{name}" for name, text in parts.items() if text)

    @property
    def table(self) -> Table:
        """The table of a field that shows one."""
        return _read_table(self.field.data)

    @property
    def can_add(self) -> bool:
        """Whether a list may have another row."""
        return self.field.max_items is None or len(self.inputs) < self.field.max_items

    def walk(self) -> Iterator[Input]:
        """Return this and everything in it."""
        yield self
        for one in self.inputs:
            yield from one.walk()


@dataclass(frozen=True, slots=True)
class Summarised:
    """A problem in the summary above the form, which leads to its field; ``target`` is empty for one of the whole page."""

    target: str
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it is drawn."""

    form: Form
    inputs: tuple[Input, ...]
    summary: tuple[Summarised, ...]


def build_page(
    form: Form,
    values: Mapping[str, Value] | None = None,
    problems: Sequence[Mapping[str, JSON]] = (),
    *,
    added: str | None = None,
) -> Page:
    """Return a page.

    Args:
        values: what was filled in; ``None`` shows the defaults.
        problems: ``validation_errors`` of the API, each with ``loc`` and ``msg``.
        added: the name of the list that has got another row.
    """
    found = [_read_problem(one) for one in problems]
    inputs, rest = [], found
    for number, one in enumerate(form.fields):
        own, rest = _split(rest, one.name)
        start = _start(one, values)
        inputs.append(
            _Builder(added, is_first=values is None).build(one, name_of("", one.name), f"f{number}", start, own)
        )
    summary = [Summarised("", _place(place, text)) for place, text in rest]
    summary += [_summarise(part, text) for drawn in inputs for part in drawn.walk() for text in part.errors]
    return Page(form, tuple(inputs), tuple(summary))


@dataclass(frozen=True, slots=True)
class _Builder:
    added: str | None
    is_first: bool

    def build(self, one: Field, name: str, ident: str, value: Value, problems: Sequence[Problem]) -> Input:
        if one.kind is Kind.MODEL:
            return self._build_model(one, name, ident, value, problems)
        if one.kind is Kind.LIST:
            return self._build_list(one, name, ident, value, problems)
        is_whole = one.kind is not Kind.JSON
        errors = dict.fromkeys(text if is_whole else _place(place, text) for place, text in problems)
        return Input(one, name, ident, value, tuple(errors))

    def _build_model(self, one: Field, name: str, ident: str, value: Value, problems: Sequence[Problem]) -> Input:
        inputs = []
        given = value if isinstance(value, dict) else None
        rest = [*problems]
        for number, part in enumerate(one.fields):
            own, rest = _split(rest, part.name)
            # A model that was not given shows the defaults of its fields.
            start = _start(part, given)
            inputs.append(self.build(part, name_of(name, part.name), f"{ident}-{number}", start, own))
        errors = dict.fromkeys(_place(place, text) for place, text in rest)
        is_set = not one.is_nullable or given is not None
        return Input(one, name, ident, value, tuple(errors), tuple(inputs), is_set)

    def _build_list(self, one: Field, name: str, ident: str, value: Value, problems: Sequence[Problem]) -> Input:
        assert one.item is not None  # noqa: S101 - a list has items
        rows: list[Value] = [*value] if isinstance(value, list) else []
        if self.is_first:
            rows += [MISSING] * (one.min_items - len(rows))
        inputs = []
        rest = [*problems]
        for number, row in enumerate(rows):
            own, rest = _split(rest, str(number))
            start = one.item.default if isinstance(row, Missing) else row
            inputs.append(self.build(one.item, f"{name}.{number}", f"{ident}-{number}", start, own))
        if inputs and self.added == name:
            inputs[-1] = _focus(inputs[-1])
        errors = dict.fromkeys(_place(place, text) for place, text in rest)
        return Input(one, name, ident, value, tuple(errors), tuple(inputs))


def _summarise(one: Input, text: str) -> Summarised:
    target = "" if one.field.kind in _WITHOUT_CONTROL else one.id
    return Summarised(target, f"{one.field.label}: {text}" if one.field.label else text)


def _start(one: Field, values: Mapping[str, Value] | None) -> Value:
    if values is None or one.kind in _WITHOUT_CONTROL or one.kind is Kind.READ_ONLY:
        return one.default
    return values.get(one.name, MISSING)


def _focus(one: Input) -> Input:
    if one.field.kind is Kind.MODEL and one.inputs:
        return Input(
            one.field, one.name, one.id, one.value, one.errors, (_focus(one.inputs[0]), *one.inputs[1:]), one.is_set
        )
    return Input(one.field, one.name, one.id, one.value, one.errors, one.inputs, one.is_set, is_focused=True)


def _read_problem(one: Mapping[str, JSON]) -> Problem:
    place = one.get("loc")
    parts = tuple(str(part) for part in place) if isinstance(place, list | tuple) else ()
    return tuple(part for part in parts if part != ROOT), str(one.get("msg", ""))


def _split(problems: Sequence[Problem], name: str) -> tuple[list[Problem], list[Problem]]:
    """Return the problems below a name, with their places below it, and the others."""
    own = [(place[1:], text) for place, text in problems if place[:1] == (name,)]
    return own, [one for one in problems if one[0][:1] != (name,)]


def _place(place: Sequence[str], text: str) -> str:
    return f"{'.'.join(place)}: {text}" if place else text


def _read_table(data: JSON) -> Table:
    """Return the table of ``headers``, ``labels`` of rows, and ``columns``; cells that are missing are empty."""
    found = data if isinstance(data, dict) else {}
    headers, labels, columns = (_texts(found.get(name)) for name in ("headers", "labels", "columns"))
    cells = [_texts(column) for column in columns]
    if labels:
        headers, cells = ["", *headers] if headers else [], [labels, *cells]
    rows = zip_longest(*cells, fillvalue="")
    return Table(tuple(map(str, headers)), tuple(tuple(map(str, row)) for row in rows))


def _texts(value: JSON) -> list[Any]:
    return value if isinstance(value, list) else []
