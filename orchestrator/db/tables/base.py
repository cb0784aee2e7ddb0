"""The base of all models, and the names of constraints."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, MetaData, Text, cast
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import DeclarativeBase

# Constraint names must be the same in models and migrations, so neither leaves them to chance.
NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The base of all models. ``str`` is ``text``, times carry their zone."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        str: Text(),
        UUID: PG_UUID(as_uuid=True),
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB(),
        list[dict[str, Any]]: JSONB(),
        list[str]: ARRAY(Text()),
    }


def columns_of(table: type[Base], shown: type[Any], **computed: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    """Return what to select for a dataclass, in the order of its fields: the table's columns by their names, or ``computed``."""
    return [computed[one.name] if one.name in computed else getattr(table, one.name) for one in fields(shown)]


def as_text(column: Any) -> ColumnElement[str]:
    """Return a JSON column as PostgreSQL writes it: the reader of the client library fails for some rows."""
    return cast(column, Text)
