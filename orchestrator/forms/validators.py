"""The fields of forms, where orchestrator-core has them: those of ``pydantic-forms``, so that ports need no other import.

Only for ports; new code imports them from ``pydantic_forms.validators``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_forms.types import strEnum
from pydantic_forms.validators import (
    Accept,
    Choice,
    ContactPerson,
    ContactPersonName,
    DisplaySubscription,
    Divider,
    Hidden,
    Label,
    ListOfOne,
    ListOfTwo,
    LongText,
    MigrationSummary,
    OrganisationId,
    Timestamp,
    callout,
    choice_list,
    contact_person_list,
    migration_summary,
    read_only_field,
    read_only_list,
    timestamp,
    unique_conlist,
)
from pydantic_forms.validators.helpers import remove_empty_items

CustomerId = Annotated[str, Field(json_schema_extra={"format": "customerId"})]
"""A field for the id of a customer; user interfaces offer those that they know."""

__all__ = [
    "Accept",
    "Choice",
    "ContactPerson",
    "ContactPersonName",
    "CustomerId",
    "DisplaySubscription",
    "Divider",
    "Hidden",
    "Label",
    "ListOfOne",
    "ListOfTwo",
    "LongText",
    "MigrationSummary",
    "OrganisationId",
    "Timestamp",
    "callout",
    "choice_list",
    "contact_person_list",
    "migration_summary",
    "read_only_field",
    "read_only_list",
    "remove_empty_items",
    "strEnum",
    "timestamp",
    "unique_conlist",
]
