"""Find and rename rows by the names that migrations use; the error for an unknown name lists the known ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, select, text, update
from sqlalchemy.orm import InstrumentedAttribute

from orchestrator.db.registration.history import lock_subscriptions
from orchestrator.db.tables import ProductBlockRow, ProductRow, ResourceTypeRow, WorkflowRow
from orchestrator.errors import ConfigurationError

_SHOWN = 10
"""Names that an error lists at most."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a name may stand for: where it is stored, and the helper that registers it."""

    word: str
    identity: InstrumentedAttribute[UUID]
    name: InstrumentedAttribute[str]
    remedy: str
    condition: tuple[ColumnElement[bool], ...] = ()


PRODUCT = Named("product", ProductRow.product_id, ProductRow.name, "register_product")
BLOCK = Named("product block", ProductBlockRow.product_block_id, ProductBlockRow.name, "register_product_block")
RESOURCE_TYPE = Named(
    "resource type", ResourceTypeRow.resource_type_id, ResourceTypeRow.resource_type, "register_resource_type"
)
WORKFLOW = Named(
    "workflow", WorkflowRow.workflow_id, WorkflowRow.name, "register_workflow", (WorkflowRow.deleted_at.is_(None),)
)


def check_name(what: str, name: str) -> str:
    """Return a name that has been checked.

    Raises:
        ConfigurationError: it is empty, not printable, or not a string.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or name != name.strip():
        raise ConfigurationError(f"a {what} needs a name of printable characters, not {name!r}")
    return name


def check_names(parameter: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return names, each once, in their order.

    Raises:
        ConfigurationError: it is one text instead of a list, or one of them is no name.
    """
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        raise ConfigurationError(f'{parameter} is a list of names, such as {parameter}=["one"], not {names!r}')
    return tuple(dict.fromkeys(check_name(f"name in {parameter}", name) for name in names))


def format_value(what: str, value: object) -> str:
    """Return a fixed input's value as the database keeps it.

    Raises:
        ConfigurationError: it is neither a text, a number, a truth value nor a member of an enum.
    """
    plain = value.value if isinstance(value, Enum) else value
    if isinstance(plain, str | int | float):
        return str(plain)
    raise ConfigurationError(f"the value of {what} is a text, a number or a truth value, not {value!r}")


def require_catalogue(connection: Connection) -> None:
    """Check that the tables exist: a migration may run before the engine's own that make them.

    Raises:
        ConfigurationError: they do not.
    """
    if not has_catalogue(connection):
        raise ConfigurationError(
            "the tables of products do not exist yet: this migration must run after the engine's '0002';"
            ' write depends_on = "0002" into the first migration of the project, or later'
        )


def has_catalogue(connection: Connection) -> bool:
    """Return whether the tables exist."""
    return bool(connection.scalar(text("SELECT to_regclass('products_workflows') IS NOT NULL")))


def find_id(connection: Connection, kind: Named, name: str) -> UUID:
    """Return the id behind a name.

    Raises:
        ConfigurationError: there is none of that name.
    """
    return find_ids(connection, kind, [check_name(kind.word, name)])[name]


def find_ids(connection: Connection, kind: Named, names: Iterable[str]) -> dict[str, UUID]:
    """Return the ids behind names.

    Raises:
        ConfigurationError: there is none for one of them.
    """
    _require_table(connection, kind)
    wanted = list(names)
    if not wanted:
        return {}
    query = select(kind.name, kind.identity).where(kind.name.in_(wanted), *kind.condition)
    found = {row[0]: row[1] for row in connection.execute(query)}
    missing = [name for name in wanted if name not in found]
    if missing:
        known = connection.scalars(select(kind.name).where(*kind.condition).order_by(kind.name).limit(_SHOWN + 1)).all()
        listed = ", ".join(known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
        raise ConfigurationError(
            f"the database has no {kind.word} {missing[0]!r} (known: {listed or 'none'}):"
            f" {kind.remedy} must come first, or the name is wrong"
        )
    return found


def find_optional(connection: Connection, kind: Named, name: str) -> UUID | None:
    """Return the id behind a name; ``None`` when there is none."""
    _require_table(connection, kind)
    found: UUID | None = connection.scalar(select(kind.identity).where(kind.name == name, *kind.condition))
    return found


def require_free(connection: Connection, kind: Named, name: str) -> str:
    """Return a name that is still free.

    Raises:
        ConfigurationError: it is taken.
    """
    if find_optional(connection, kind, check_name(kind.word, name)) is not None:
        raise ConfigurationError(f"the database has a {kind.word} {name!r} already: a name stands for one only")
    return name


def rename(connection: Connection, kind: Named, old: str, new: str) -> UUID:
    """Rename what a name stands for; return its id.

    Raises:
        ConfigurationError: there is no ``old``, or ``new`` is taken.
    """
    identity = find_id(connection, kind, old)
    require_free(connection, kind, new)
    lock_subscriptions(connection)
    connection.execute(update(kind.name.class_).where(kind.identity == identity).values({kind.name.key: new}))
    return identity


def _require_table(connection: Connection, kind: Named) -> None:
    # The table of workflows is older than those of products.
    if kind is not WORKFLOW:
        require_catalogue(connection)
