"""Show a form's page to people: its fields, their types, and the choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from rich.text import Text

from orchestrator.cli.context import REFUSED, refuse
from orchestrator.cli.form_texts import SHOWN, show_text
from orchestrator.cli.output import Output, clean
from orchestrator.cli.render import compact, short
from orchestrator.errors import FormIncompleteError
from orchestrator.types import JSON

_INLINE = 80
"""Characters of plain values to choose from that still stand in the table."""

_DEPTH = 4
"""How deep the fields of objects within objects are shown; some hold themselves."""

_CHOICES = 20
"""Choices that are shown to people; a form may offer thousands."""


def show_form(output: Output, form: JSON) -> None:
    """Print a form's page: its fields, their types and whether they are required."""
    if not isinstance(form, dict):
        return
    title = form.get("title")
    if title and title != "unknown":  # what the forms library calls a page without a title
        output.line((clean(title), "bold"))
    rows = []
    choosing: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, field, is_required in _walk(form, form):
        if field.get("format") in SHOWN:
            show_text(output, name, field)
            continue
        choosing.setdefault(tuple(choices(field, form)), []).append(clean(name))
        texts = [str(field[key]) for key in ("title", "description") if field.get(key)]
        default = f"default {compact(field['default'])}" if field.get("default") is not None else ""
        rows.append(
            (
                Text(clean(name), style="bold"),
                clean(type_of(field, form), limit=_INLINE),
                "required" if is_required else default or "optional",
                clean(" – ".join(texts)),
            )
        )
    output.table(("field", "type", "", "title"), rows, prose="title", empty="(the page has no fields: pass {})")
    choosing.pop((), None)
    for offered, names in choosing.items():
        output.line()
        output.line((", ".join(names), "bold"), " can be:")
        for value, label in offered[:_CHOICES]:
            output.prose(clean(f"{label} ({value})" if label else value), indent=4)
        if len(offered) > _CHOICES:
            output.line((f"    and {len(offered) - _CHOICES} more: --json shows all", "dim"))
    if choosing:
        output.line()


def fields(page: Mapping[str, Any], form: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Return the fields of a page with their schemas, references resolved.

    Args:
        form: the schema that has the definitions, when the page is part of another.
    """
    properties = page.get("properties")
    if not isinstance(properties, dict):
        return {}
    found = page if form is None else form
    return {str(name): _resolve(field, found) for name, field in properties.items() if isinstance(field, dict)}


def _walk(
    page: Mapping[str, Any], form: Mapping[str, Any], path: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield the fields of a page, and below each that holds objects the fields of these: path, schema, whether required."""
    needed = page.get("required")
    required = needed if isinstance(needed, list) else []
    for name, field in fields(page, form).items():
        place = f"{path}.{name}" if path else name
        yield place, field, name in required
        if depth < _DEPTH:
            for inner, many in _find_objects(field, form):
                yield from _walk(inner, form, f"{place}[]" if many else place, depth + 1)


def _find_objects(field: Mapping[str, Any], form: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the schemas of objects that a field holds, alone or in a list, and whether it is a list."""
    field = _resolve(field, form)
    if isinstance(field.get("properties"), dict):
        yield field, False
    items = field.get("items")
    if isinstance(items, dict):
        yield from ((inner, True) for inner, _ in _find_objects(items, form))
    for several in ("anyOf", "oneOf"):
        for one in field[several] if isinstance(field.get(several), list) else ():
            if isinstance(one, dict):
                yield from _find_objects(one, form)


def resume_command(process_id: UUID, sequence: int, form: JSON) -> str:
    """Return the line with the command that fills in this form of a process, and no form that comes after it."""
    return f"continue with: orchestrator resume {short(process_id)} --seen {sequence} --input '{example(form)}'"


def example(form: JSON) -> str:
    """Return a page to fill in, for a command line."""
    if not isinstance(form, dict):
        return "{}"
    needed = form.get("required")
    names = [str(name) for name in needed] if isinstance(needed, list) else []
    return "{" + ", ".join(f'"{clean(name)}": …' for name in names) + "}"


def type_of(field: Mapping[str, Any], form: Mapping[str, Any]) -> str:
    """Return the type of a field as people read it."""
    field = _resolve(field, form)
    if "const" in field:
        return compact(field["const"])
    if isinstance(field.get("enum"), list):
        return "choice" if choices(field, form) else _values(field["enum"])
    for several in ("anyOf", "oneOf"):
        if isinstance(field.get(several), list):
            return " | ".join(type_of(one, form) for one in field[several] if isinstance(one, dict))
    kind = field.get("format") or field.get("type") or "any"
    if kind == "array":
        items = field.get("items")
        return f"list of {type_of(items, form) if isinstance(items, dict) else 'any'}"
    return str(kind)


def choices(field: Mapping[str, Any], form: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the choices for a field, or for each item of it, as (value, label); none when the table shows them.

    Forms have the labels as ``options``, beside the ``enum`` of the values.
    """
    field = _resolve(field, form)
    values = field.get("enum")
    if isinstance(values, list):
        options = field.get("options")
        if not isinstance(options, dict) and len(_values(values)) <= _INLINE:
            return []
        labels = options if isinstance(options, dict) else {}
        offered = [(one if isinstance(one, str) else compact(one), labels.get(str(one), "")) for one in values]
        return [(value, "" if label == value else str(label)) for value, label in offered]
    several = [field[key] for key in ("anyOf", "oneOf") if isinstance(field.get(key), list)]
    parts = [field.get("items"), *chain(*several)]
    return [one for part in parts if isinstance(part, dict) for one in choices(part, form)]


def _values(values: list[JSON]) -> str:
    return " | ".join(compact(one) for one in values)


def _resolve(field: Mapping[str, Any], form: Mapping[str, Any]) -> dict[str, Any]:
    """Return a field's schema with ``$ref`` (alone, or within a single ``allOf``) replaced by what it refers to."""
    own = dict(field)
    parts = own.get("allOf")
    reference = own.pop("$ref", None)
    if reference is None and isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict):
        reference = parts[0].get("$ref")
    if not isinstance(reference, str):
        return own
    definitions = form.get("$defs")
    found = definitions.get(reference.rsplit("/", 1)[-1]) if isinstance(definitions, dict) else None
    if not isinstance(found, dict):
        return own
    # The title of a definition is the name of its class, which means nothing to whoever fills in the page.
    return {**{key: value for key, value in found.items() if key != "title"}, **own}


def show_next_page(output: Output, error: FormIncompleteError, command: str, pages: Sequence[str]) -> int:
    """Show the page that is still missing and how to send it; return the exit code.

    Args:
        command: what is to be repeated, without the pages.
        pages: those that were given, as they were written.
    """
    if output.as_json:
        refuse(output, error)
        return REFUSED
    output.complain(f"page {len(pages) + 1} of the form is missing" if pages else "this needs input: fill in the form")
    show_form(output, error.form)
    given = "".join(f" --input {quote(page)}" for page in pages)
    output.line(f"continue with: {command}{clean(given)} --input '{example(error.form)}'")
    return REFUSED


def quote(text: str) -> str:
    """Return an argument as a shell takes it."""
    return "'" + text.replace("'", "'\\''") + "'"
