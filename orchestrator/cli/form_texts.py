"""What a form's page shows and does not ask: summaries, callouts and texts of the forms library, for people in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.cli.output import Output, clean
from orchestrator.cli.render import compact
from orchestrator.types import JSON

_ROWS = 50
"""Rows of a summary that are shown to people; a form may summarise thousands of things."""

SHOWN = frozenset({"summary", "callout", "markdown", "divider", "label"})
"""The formats of fields that ask for nothing."""


def show_text(output: Output, name: str, field: Mapping[str, Any]) -> None:
    """Print what a field of one of the formats in :data:`SHOWN` says; nothing when it says nothing."""
    title = str(field.get("title") or name)
    kind = field.get("format")
    data = field.get("extraProperties")
    if kind == "summary" and isinstance(data, dict) and isinstance(data.get("data"), dict):
        _show_summary(output, title, data["data"])
    elif kind in ("callout", "markdown") and isinstance(field.get("default"), dict):
        said = [field["default"].get(key) for key in ("header", "message", "content")]
        lines = [line for one in said if isinstance(one, str) for line in one.splitlines() if line.strip()]
        for line in lines:
            output.prose(clean(line))
        if lines:
            output.line()
    elif kind == "label":
        output.prose((clean(title), "bold"))


def _show_summary(output: Output, title: str, data: Mapping[str, JSON]) -> None:
    """Print a table: ``labels`` name its rows, ``headers`` its columns, and ``columns`` has the values, column by column."""
    columns = [_texts(one) for one in _list(data.get("columns"))]
    labels, headers = _texts(data.get("labels")), _texts(data.get("headers"))
    rows = max([len(labels), *map(len, columns)], default=0)
    output.line((clean(title), "bold"))
    names = [headers[number] if number < len(headers) else "" for number in range(len(columns))]
    output.table(
        (*(("",) if labels else ()), *(clean(name) for name in names)),
        [
            tuple(clean(column[row]) if row < len(column) else "" for column in ([labels] if labels else []) + columns)
            for row in range(min(rows, _ROWS))
        ],
        empty="(nothing)",
    )
    if rows > _ROWS:
        output.line((f"and {rows - _ROWS} more: --json shows all", "dim"))
    output.line()


def _list(value: JSON) -> Sequence[JSON]:
    return value if isinstance(value, list) else ()


def _texts(value: JSON) -> list[str]:
    return [one if isinstance(one, str) else compact(one) for one in _list(value)]
