"""Read what a browser sends of a page: texts become the values that the form's model checks.

A text that is no value of its field stays the text. So the model says what is wrong with it, and the page shows it as it was
written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from orchestrator.api.ui.forms.fields import MISSING, SHOWN, Field, Kind, Missing, Value
from orchestrator.types import JSON

ADD, REMOVE, ROW, SET = "_add", "_remove", "_row", "_set"
"""Names of controls beside fields: the buttons that add and remove a row; the rows that there are; the optional models that are
given."""

OTHER: Final = "~other"
"""What follows the name of a choice in the name of the text that stands for a value which is not offered."""

_PREFIX: Final = "f"
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,300}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,300}(\.[0-9]{0,300})?|\.[0-9]{1,300})([eE][+-]?[0-9]{1,4})?")
_TEXTS: Final = frozenset({Kind.TEXT, Kind.LONG_TEXT, Kind.PASSWORD})


@dataclass(frozen=True, slots=True)
class Posted:
    """What a browser has sent: the texts of each control."""

    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def first(self, name: str) -> str | None:
        """Return the text of a control; ``None`` when it was not sent."""
        found = self.texts.get(name, ())
        return found[0] if found else None

    def has(self, name: str, text: str) -> bool:
        """Return whether a control was sent with this text."""
        return text in self.texts.get(name, ())

    @property
    def is_edit(self) -> bool:
        """Whether a row is to be added or removed, and nothing else done."""
        return ADD in self.texts or REMOVE in self.texts

    def list_rows(self, name: str) -> list[str]:
        """Return the names of the rows of a list, in their order, without the one that is to be removed."""
        start = f"{name}."
        rows = [one for one in self.texts.get(ROW, ()) if one.startswith(start) and one[len(start) :].isdigit()]
        return [one for one in dict.fromkeys(rows) if not self.has(REMOVE, one)]


def name_of(parent: str, name: str) -> str:
    """Return the name of the control of a field.

    Args:
        parent: the name of what it is in, empty for the page.
    """
    return f"{parent or _PREFIX}.{name.replace('~', '~0').replace('.', '~1')}"


def read_values(fields: Sequence[Field], posted: Posted, parent: str = "") -> dict[str, Value]:
    """Return the values of fields, by their names. What is left empty is left out, unless emptiness is a value of it.

    While a row is added, rows that are empty stay, as :data:`MISSING`.
    """
    found = {one.name: _read(one, name_of(parent, one.name), posted) for one in fields}
    return {name: value for name, value in found.items() if value is not MISSING}


def write_json(values: Mapping[str, Value]) -> dict[str, JSON]:
    """Return values as they are sent on: without rows that are missing."""
    return {name: _drop_missing(value) for name, value in values.items() if not isinstance(value, Missing)}


def write_text(one: Field, value: Value) -> str:
    """Return a value as the text of its control, so that reading it gives the value again."""
    if value is None or isinstance(value, Missing):
        return ""
    if one.kind is Kind.TIMESTAMP and isinstance(value, int | float):
        return _write_time(value, has_time=one.has_time)
    if isinstance(value, str):
        if one.kind is Kind.JSON and _read_json(value) is not value:
            return json.dumps(value, ensure_ascii=False)
        return value
    is_inline = isinstance(value, bool | int | float)
    return json.dumps(value, ensure_ascii=False, indent=None if is_inline else 2)


def _read(one: Field, name: str, posted: Posted) -> Value:
    if one.kind in SHOWN:
        return MISSING
    if one.kind in {Kind.READ_ONLY, Kind.HIDDEN}:
        return one.default if one.is_required else MISSING
    if one.kind is Kind.ACCEPT:
        return one.options[0 if name in posted.texts else -1].value if one.options else MISSING
    if one.kind is Kind.BOOLEAN and not one.is_nullable:
        return name in posted.texts
    if one.kind is Kind.CHOICES:
        return [_choose(one, text) for text in posted.texts.get(name, ())]
    if one.kind is Kind.MODEL:
        if one.is_nullable and not posted.has(SET, name):
            return None
        return read_values(one.fields, posted, name)
    if one.kind is Kind.LIST:
        return _read_rows(one, name, posted)
    return _read_text(one, name, posted)


def _read_rows(one: Field, name: str, posted: Posted) -> list[Value]:
    assert one.item is not None  # noqa: S101 - a list has items
    rows = [_read(one.item, row, posted) for row in posted.list_rows(name)]
    if posted.has(ADD, name):
        rows.append(MISSING)
    return [row for row in rows if posted.is_edit or row is not MISSING]


def _read_text(one: Field, name: str, posted: Posted) -> Value:
    text = posted.first(name) or ""
    if one.is_open:
        text = (posted.first(f"{name}{OTHER}") or "").strip() or text
    if one.kind not in _TEXTS and one.kind is not Kind.CHOICE and one.kind is not Kind.RADIO:
        text = text.strip()
    if not text:
        return _empty(one)
    # Browsers send the ends of lines as CR LF.
    return _convert(one, text.replace("\r\n", "\n"))


def _empty(one: Field) -> Value:
    """Return what an empty control means: nothing, or the empty text where one could stand, or would be wrong."""
    if one.is_nullable:
        return None
    return MISSING if one.default is MISSING else ""


def _convert(one: Field, text: str) -> JSON:
    match one.kind:
        case Kind.INTEGER if _INTEGER.fullmatch(text):
            return int(text)
        case Kind.NUMBER if _NUMBER.fullmatch(text) and not one.is_text:
            return _read_number(text)
        case Kind.BOOLEAN if text in {"true", "false"}:
            return text == "true"
        case Kind.CHOICE | Kind.RADIO:
            return _choose(one, text)
        case Kind.TIMESTAMP:
            return _read_time(text)
        case Kind.JSON:
            return _read_json(text)
    return text


def _choose(one: Field, text: str) -> JSON:
    return next((option.value for option in one.options if option.text == text), text)


def _read_number(text: str) -> JSON:
    if _INTEGER.fullmatch(text):
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else text


def _read_time(text: str) -> JSON:
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError):
        return text


def _write_time(value: float, *, has_time: bool) -> str:
    try:
        at = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return str(value)
    if not has_time:
        return f"{at:%Y-%m-%d}"
    return at.strftime("%Y-%m-%dT%H:%M:%S" if at.second else "%Y-%m-%dT%H:%M")


def _read_json(text: str) -> JSON:
    try:
        value: JSON = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _drop_missing(value: JSON) -> JSON:
    if isinstance(value, dict):
        return write_json(value)
    if isinstance(value, list):
        return [_drop_missing(one) for one in value if not isinstance(one, Missing)]
    return value
