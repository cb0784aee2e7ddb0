"""Changes of subscriptions name blocks by their ids, where they had the paths at which the blocks stood.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-25

``{"node.ports.0": [null, "<port>"], "node.ports.0.vlan": [null, 7]}`` becomes ``{"<node>/ports/0": [null, "<port>"],
"<port>.vlan": [null, 7]}``. No column changes, so programs of the version before work beside this one; their entries keep the
paths, and are shown as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Changes = dict[str, list[Any]]
Values = dict[str, Any]

COLUMNS = {"product_id", "customer_id", "description", "status", "start_date", "end_date", "note", "insync"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
KEY = re.compile(rf"(?P<block>{UUID.pattern})?(?P<kind>[./])(?P<rest>.+)")


def upgrade() -> None:
    """Write each entry anew, by key."""
    resource_types = set(op.get_bind().scalars(sa.text("SELECT resource_type FROM resource_types")))
    _rewrite(lambda history: convert_to_keys(history, resource_types))


def downgrade() -> None:
    """Write each entry anew, by path; a block that has moved has all its values at other paths then."""
    _rewrite(convert_to_paths)


def _rewrite(convert: Callable[[list[Changes]], Iterator[Changes]]) -> None:
    connection = op.get_bind()
    # Also keeps everybody from appending to a history until the commit.
    connection.execute(sa.text("ALTER TABLE subscription_changes DISABLE TRIGGER append_only"))
    histories = sa.text(
        "SELECT change_id, CAST(changes AS text) FROM subscription_changes WHERE subscription_id = :id ORDER BY change_id"
    )
    write = sa.text("UPDATE subscription_changes SET changes = CAST(:changes AS jsonb) WHERE change_id = :change_id")
    for subscription in connection.scalars(sa.text("SELECT DISTINCT subscription_id FROM subscription_changes")).all():
        rows = connection.execute(histories, {"id": subscription}).all()
        stored: list[Changes] = [json.loads(changes) for _, changes in rows]
        different = [
            {"change_id": row.change_id, "changes": json.dumps(changes)}
            for row, before, changes in zip(rows, stored, convert(stored), strict=True)
            if changes != before
        ]
        if different:
            connection.execute(write, different)
    connection.execute(sa.text("ALTER TABLE subscription_changes ENABLE TRIGGER append_only"))


def convert_to_keys(history: list[Changes], resource_types: Iterable[str]) -> Iterator[Changes]:
    """Give the changes of one subscription by key. What stands below no known block stays as it is.

    A path with an id as its value is a block's place; but the value of a resource type may be an id as well, and has nothing
    below it.
    """
    names = set(resource_types)
    filled = {path.rpartition(".")[0] for changes in history for path in changes}

    def make_key(path: str, value: Any, known: Values) -> str:
        if path in COLUMNS or KEY.fullmatch(path):
            return path
        parts = path.split(".")
        holder, rest = "", parts
        for length in range(len(parts) - 1, 0, -1):
            above = known.get(".".join(parts[:length]))
            if _is_id(above):
                holder, rest = str(above), parts[length:]
                break
        else:
            if parts[0] == "blocks" and len(parts) > 2 and UUID.fullmatch(parts[1]):  # noqa: PLR2004 - and a name
                holder, rest = parts[1], parts[2:]
        if len(rest) > 2 or (len(rest) == 2 and not rest[1].isdecimal()):  # noqa: PLR2004 - a field and a position
            return path
        is_link = _is_id(value) and (not holder or len(rest) == 2 or path in filled or rest[0] not in names)  # noqa: PLR2004
        if not is_link and (not holder or len(rest) > 1):
            return path
        return f"{holder}/{'/'.join(rest)}" if is_link else f"{holder}.{rest[0]}"

    def find_all(known: Values) -> Values:
        return {make_key(path, value, known): value for path, value in known.items()}

    known: Values = {}
    for changes in history:
        before = dict(known)
        _apply(known, changes)
        found: Changes = {}
        # When a block has come, moved or gone, a path without an entry may have the value of another block than before.
        has_moved = any(_is_id(value) for path, pair in changes.items() if path not in COLUMNS for value in pair)
        if has_moved:
            found = _diff(find_all(before), find_all(known))
        for path, (old, new) in changes.items():
            if not has_moved or _is_same(before.get(path), known.get(path)):
                key = make_key(path, old if new is None else new, before if new is None else known)
                found.setdefault(key, [old, new])
        yield found


def convert_to_paths(history: list[Changes]) -> Iterator[Changes]:
    """Give the changes of one subscription by path."""
    known: Values = {}
    for changes in history:
        if not any(KEY.fullmatch(key) for key in changes):
            _apply(known, changes)
            yield changes
            continue
        before = _flatten(known)
        _apply(known, changes)
        yield _diff(before, _flatten(known))


def _diff(before: Values, after: Values) -> Changes:
    pairs = {path: [before.get(path), after.get(path)] for path in {**before, **after}}
    return {path: pair for path, pair in pairs.items() if not _is_same(*pair)}


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and UUID.fullmatch(value) is not None


def _is_same(old: Any, new: Any) -> bool:
    """Tell 1 from true, which Python takes for equal, also inside of lists and dicts."""
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)


def _apply(known: Values, changes: Changes) -> None:
    for key, (_, new) in changes.items():
        if new is None or key == "insync":
            known.pop(key, None)
        else:
            known[key] = new


def _flatten(known: Values) -> Values:
    """Give all that a subscription is by path, from the same by key."""
    found: Values = {}
    links: dict[str, dict[str, str]] = {}
    values: dict[str, Values] = {}
    for key, value in known.items():
        parts = KEY.fullmatch(key)
        if parts is None:
            found[key] = value
        elif parts["kind"] == "/":
            links.setdefault(parts["block"] or "", {})[parts["rest"].replace("/", ".")] = value
        elif parts["block"]:
            values.setdefault(parts["block"], {})[parts["rest"]] = value
    seen: set[str] = set()

    def fill(holder: str, path: str) -> None:
        seen.add(holder)
        found.update({f"{path}{name}": value for name, value in values.get(holder, {}).items()})
        for place, block in sorted(links.get(holder, {}).items()):
            found[f"{path}{place}"] = block
            if block not in seen:
                fill(block, f"{path}{place}.")

    fill("", "")
    for block in sorted({*links, *values}):
        if block not in seen:
            fill(block, f"blocks.{block}.")
    return found
