"""Read the JSON schema of a page of a form as fields: which control draws each, and what it says.

The schema is the one that the API answers with 510: that of pydantic-forms. What no control fits is a text area with JSON in it,
so that every page can be filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from orchestrator.types import JSON


class Kind(StrEnum):
    """The control of a field."""

    TEXT = "text"
    LONG_TEXT = "long_text"
    PASSWORD = "password"  # noqa: S105 - no password
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    RADIO = "radio"
    CHOICES = "choices"
    ACCEPT = "accept"
    DATE = "date"
    TIMESTAMP = "timestamp"
    JSON = "json"
    LIST = "list"
    MODEL = "model"
    READ_ONLY = "read_only"
    HIDDEN = "hidden"
    LABEL = "label"
    DIVIDER = "divider"
    CALLOUT = "callout"
    MARKDOWN = "markdown"
    SUMMARY = "summary"


class Missing:
    """What stands for a value that is not there; ``None`` is a value."""

    def __repr__(self) -> str:
        """Return a name for error texts."""
        return "MISSING"


MISSING: Final = Missing()

Value = Any
"""A JSON value, in which :data:`MISSING` may stand for rows that are not filled in yet; or :data:`MISSING` itself."""

SHOWN: Final = frozenset({Kind.LABEL, Kind.DIVIDER, Kind.CALLOUT, Kind.MARKDOWN, Kind.SUMMARY})
"""Fields that only say something."""

_BY_FORMAT: Final[Mapping[str, Kind]] = {
    "long": Kind.LONG_TEXT,
    "hidden": Kind.HIDDEN,
    "label": Kind.LABEL,
    "divider": Kind.DIVIDER,
    "callout": Kind.CALLOUT,
    "markdown": Kind.MARKDOWN,
    "summary": Kind.SUMMARY,
    "timestamp": Kind.TIMESTAMP,
    "date": Kind.DATE,
    "password": Kind.PASSWORD,
}
_BY_TYPE: Final[Mapping[str, Kind]] = {
    "string": Kind.TEXT,
    "integer": Kind.INTEGER,
    "number": Kind.NUMBER,
    "boolean": Kind.BOOLEAN,
}
_HINTS: Final[Mapping[str, str]] = {
    "date-time": "A date and time with its offset, such as 2026-01-31T12:00:00+01:00.",
    "time": "A time, such as 12:00.",
    "duration": "A duration, such as P1DT2H.",
    "uuid": "An id, such as 3f2a9c41-5b7e-4c1d-9f2a-8e6d4b3c2a10.",
}
_INPUT_MODES: Final[Mapping[str, str]] = {"email": "email", "uri": "url"}


@dataclass(frozen=True, slots=True)
class Option:
    """One of the values that may be chosen."""

    value: JSON
    label: str

    @property
    def text(self) -> str:
        """The value as the attribute of a control."""
        return write_option(self.value)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a page.

    Args:
        is_required: whether a value must be given; of one that cannot be changed, whether its value is sent all the same.
        default: what stands in it at first.
        fields: of a model.
        item: what each row of a list is.
        data: what a field that only says something says; the parts of an :attr:`Kind.ACCEPT`.
        is_open: whether a choice takes other values than those that it offers.
        hint: how a value is written.
        is_text: whether a number is sent as text, because a binary number would not keep its digits.
    """

    name: str
    kind: Kind
    label: str
    help: str = ""
    hint: str = ""
    is_required: bool = False
    is_nullable: bool = False
    default: Value = MISSING
    options: tuple[Option, ...] = ()
    is_open: bool = False
    minimum: float | None = None
    maximum: float | None = None
    fields: tuple[Field, ...] = ()
    item: Field | None = None
    min_items: int = 0
    max_items: int | None = None
    data: JSON = None
    input_mode: str = ""
    has_time: bool = True
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """A page of a form."""

    title: str
    description: str
    fields: tuple[Field, ...]


def read_form(schema: JSON, labels: Mapping[str, str] | None = None) -> Form:
    """Return the page that a JSON schema describes.

    Args:
        labels: translations: labels of fields by their names, and help under ``<name>_info``.
    """
    root = schema if isinstance(schema, dict) else {}
    reader = _Reader(_mapping(root.get("$defs")), labels or {})
    title = str(root.get("title", ""))
    return Form(
        title="" if title == "unknown" else title,
        description=str(root.get("description", "")),
        fields=reader.read_fields(root, ()),
    )


def write_option(value: JSON) -> str:
    """Return a value of a choice as text."""
    return value if isinstance(value, str) else "true" if value is True else "false" if value is False else str(value)


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A schema without references and alternatives.

    Args:
        refs: the definitions that it is inside of.
        others: the types of the alternatives that are left out.
    """

    schema: Mapping[str, Any]
    is_nullable: bool
    refs: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reader:
    definitions: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)

    def read_fields(self, schema: Mapping[str, Any], refs: tuple[str, ...]) -> tuple[Field, ...]:
        """Return the fields of an object."""
        required = schema.get("required", ())
        return tuple(
            self.read_field(name, _mapping(one), refs, is_required=name in required)
            for name, one in _mapping(schema.get("properties")).items()
        )

    def read_field(self, name: str, written: Mapping[str, Any], refs: tuple[str, ...], *, is_required: bool) -> Field:
        """Return a field."""
        found = self._resolve(written, refs)
        schema = found.schema
        label = self.labels.get(name) or str(written.get("title") or _humanise(name))
        one = Field(
            name=name,
            kind=Kind.JSON,
            label=label,
            help=self.labels.get(f"{name}_info") or str(written.get("description") or schema.get("description") or ""),
            is_required=is_required,
            is_nullable=found.is_nullable,
            default=written.get("default", schema.get("default", MISSING)),
        )
        return self._draw(one, found)

    def _draw(self, one: Field, found: _Resolved) -> Field:
        schema = found.schema
        kind = _BY_FORMAT.get(str(schema.get("format")))
        if kind in SHOWN or kind is Kind.HIDDEN:
            is_sent = one.default is MISSING and "const" in schema
            value = schema["const"] if is_sent else one.default
            data = _read_data(kind, schema, one.default)
            return replace(one, kind=kind, is_required=is_sent, default=value, data=data)
        if _is_read_only(schema) or "const" in schema:
            is_sent = one.default is MISSING and "const" in schema
            value = schema["const"] if is_sent else one.default
            return replace(one, kind=Kind.READ_ONLY, is_required=is_sent, default=value)
        if "enum" in schema:
            return _draw_choice(one, schema)
        if kind is not None:
            return replace(_with_bounds(one, schema), kind=kind, has_time=_has_time(schema))
        return self._draw_type(one, found)

    def _draw_type(self, one: Field, found: _Resolved) -> Field:
        schema = found.schema
        written_type = str(schema.get("type", ""))
        if written_type == "array":
            return self._draw_list(one, found)
        if written_type == "object" and schema.get("properties") and not found.others:
            return replace(one, kind=Kind.MODEL, fields=self.read_fields(schema, found.refs))
        kind = _BY_TYPE.get(written_type)
        if kind is None or {"array", "object"} & {*found.others}:
            return replace(one, hint="As JSON.")
        is_text = kind is Kind.NUMBER and "string" in found.others
        mode = _INPUT_MODES.get(str(schema.get("format")), "")
        hint = _HINTS.get(str(schema.get("format")), "")
        return replace(_with_bounds(one, schema), kind=kind, hint=hint, input_mode=mode, is_text=is_text)

    def _draw_list(self, one: Field, found: _Resolved) -> Field:
        items = found.schema.get("items")
        if not isinstance(items, dict) or found.others:
            return replace(one, hint="As JSON.")
        item = self.read_field("", items, found.refs, is_required=True)
        one = replace(one, min_items=int(found.schema.get("minItems", 0)), max_items=found.schema.get("maxItems"))
        if item.kind in {Kind.CHOICE, Kind.RADIO} and not item.is_open:
            return replace(one, kind=Kind.CHOICES, options=item.options)
        return replace(one, kind=Kind.LIST, item=replace(item, label=one.label))

    def _resolve(self, schema: Mapping[str, Any], refs: tuple[str, ...], *, is_nullable: bool = False) -> _Resolved:
        """Follow references and take the first alternative; a model inside of itself has no type, so that it is JSON."""
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            if name in refs or name not in self.definitions:
                return _Resolved({key: value for key, value in rest.items() if key != "type"}, is_nullable, refs)
            return self._resolve({**self.definitions[name], **rest}, (*refs, name), is_nullable=is_nullable)
        if len(parts := schema.get("allOf", ())) == 1:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            return self._resolve({**_mapping(parts[0]), **rest}, refs, is_nullable=is_nullable)
        alternatives = [_mapping(one) for one in schema.get("anyOf") or schema.get("oneOf") or ()]
        chosen = [one for one in alternatives if one.get("type") != "null"]
        is_nullable = is_nullable or len(chosen) < len(alternatives)
        if not chosen or "type" in schema:
            return _Resolved(schema, is_nullable, refs)
        rest = {key: value for key, value in schema.items() if key not in {"anyOf", "oneOf"}}
        found = self._resolve({**chosen[0], **rest}, refs, is_nullable=is_nullable)
        others = (str(self._resolve(one, refs).schema.get("type", "object")) for one in chosen[1:])
        return replace(found, others=(*found.others, *others))


def _draw_choice(one: Field, schema: Mapping[str, Any]) -> Field:
    labels = _mapping(schema.get("options"))
    options = tuple(Option(value, str(labels.get(str(value), value))) for value in schema["enum"] if value is not None)
    if schema.get("format") == "accept":
        return replace(one, kind=Kind.ACCEPT, options=options, data=schema.get("data"))
    kind = Kind.RADIO if schema.get("format") == "radio" else Kind.CHOICE
    is_nullable = one.is_nullable or None in schema["enum"]
    is_open = schema.get("acceptsOthers") is True
    return replace(one, kind=kind, options=options, is_nullable=is_nullable, is_open=is_open)


def _with_bounds(one: Field, schema: Mapping[str, Any]) -> Field:
    minimum = schema.get("minimum", schema.get("exclusiveMinimum"))
    maximum = schema.get("maximum", schema.get("exclusiveMaximum"))
    return replace(one, minimum=minimum, maximum=maximum)


def _is_read_only(schema: Mapping[str, Any]) -> bool:
    return schema.get("readOnly") is True or any(
        _mapping(schema.get(name)).get("disabled") is True for name in ("uniforms", "extraProperties")
    )


def _read_data(kind: Kind | None, schema: Mapping[str, Any], default: Value) -> JSON:
    if kind is Kind.SUMMARY:
        for name in ("uniforms", "extraProperties"):
            found: JSON = _mapping(schema.get(name)).get("data")
            if found is not None:
                return found
    return None if isinstance(default, Missing) else default


def _has_time(schema: Mapping[str, Any]) -> bool:
    return all(
        _mapping(schema.get(name)).get("showTimeSelect") is not False for name in ("uniforms", "extraProperties")
    )


def _humanise(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
