"""Plain types that every layer shares. Imports nothing of the engine.

The types of forms are those of ``pydantic-forms``; they are here, too, because ports import them from here.

The status strings are part of the public contract: user interfaces, event consumers and operators' queries rely on them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import JsonValue as JSON  # noqa: N814 - a type, named as people say it

if TYPE_CHECKING:
    from pydantic_forms.types import (
        AcceptData,
        AcceptItemType,
        FormGenerator,
        InputForm,
        InputFormGenerator,
        InputStepFunc,
        SimpleInputFormGenerator,
        StateInputFormGenerator,
        StateInputStepFunc,
        StateSimpleInputFormGenerator,
        SubscriptionMapping,
        SummaryData,
        strEnum,
    )

State = dict[str, Any]
"""What a process knows: a JSON object. ``Any`` because its keys and values belong to the workflow's author."""

UUIDstr = str
"""An id as the state has it."""

SI = TypeVar("SI", covariant=True)  # noqa: PLC0105 - the name under which authors know it
"""The block of an annotated list, as in ``ListOfPorts = Annotated[list[SI], Len(2, 8)]``."""


def sort_keys(value: JSON) -> JSON:
    """Return JSON with the keys of all its objects in order, for digests: senders write the same object in any order."""
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value)}
    return [sort_keys(one) for one in value] if isinstance(value, list) else value


__all__ = [
    "JSON",
    "SI",
    "AcceptData",
    "AcceptItemType",
    "Assignee",
    "FormGenerator",
    "InputForm",
    "InputFormGenerator",
    "InputStepFunc",
    "ProcessStatus",
    "SimpleInputFormGenerator",
    "State",
    "StateInputFormGenerator",
    "StateInputStepFunc",
    "StateSimpleInputFormGenerator",
    "StepStatus",
    "Stored",
    "SubscriptionLifecycle",
    "SubscriptionMapping",
    "SummaryData",
    "UUIDstr",
    "sort_keys",
    "strEnum",
]


_OF_FORMS = frozenset(
    {
        "AcceptData",
        "AcceptItemType",
        "FormGenerator",
        "InputForm",
        "InputFormGenerator",
        "InputStepFunc",
        "SimpleInputFormGenerator",
        "StateInputFormGenerator",
        "StateInputStepFunc",
        "StateSimpleInputFormGenerator",
        "SubscriptionMapping",
        "SummaryData",
        "strEnum",
    }
)


def __getattr__(name: str) -> Any:
    """Return a type of forms. Imported when asked for: most commands show no form, and must start quickly."""
    if name in _OF_FORMS:
        from pydantic_forms import types

        return getattr(types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class ProcessStatus(StrEnum):
    """Where a process stands. ``COMPLETED`` and ``ABORTED`` are final."""

    CREATED = "created"
    RUNNING = "running"
    SUSPENDED = "suspended"
    WAITING = "waiting"
    AWAITING_CALLBACK = "awaiting_callback"
    ABORTED = "aborted"
    FAILED = "failed"
    API_UNAVAILABLE = "api_unavailable"
    INCONSISTENT_DATA = "inconsistent_data"
    COMPLETED = "completed"
    RESUMED = "resumed"

    @property
    def is_final(self) -> bool:
        """Return whether nothing can ever change this process again."""
        return self in {ProcessStatus.COMPLETED, ProcessStatus.ABORTED}

    @property
    def is_failure(self) -> bool:
        """Return whether the process stopped because of a failure and can be retried."""
        return self in {ProcessStatus.FAILED, ProcessStatus.API_UNAVAILABLE, ProcessStatus.INCONSISTENT_DATA}


class StepStatus(StrEnum):
    """How one attempt of one step ended."""

    SUCCESS = "success"
    SKIPPED = "skipped"
    SUSPEND = "suspend"
    WAITING = "waiting"
    AWAITING_CALLBACK = "awaiting_callback"
    FAILED = "failed"
    ABORT = "abort"
    COMPLETE = "complete"


class SubscriptionLifecycle(StrEnum):
    """Where a subscription stands in its life."""

    INITIAL = "initial"
    ACTIVE = "active"
    MIGRATING = "migrating"
    DISABLED = "disabled"
    TERMINATED = "terminated"
    PROVISIONING = "provisioning"


class Assignee(StrEnum):
    """Whom an input step asks; any other text will do as well."""

    NOC = "NOC"
    SYSTEM = "SYSTEM"
    CHANGES = "CHANGES"
    KLANTSUPPORT = "KLANTSUPPORT"


class Stored:
    """Marks classes whose instances live in tables of their own.

    The state of a process holds only a reference to them: an id, or an object that has the id under ``reference_key``. Steps
    that ask for one get it loaded fresh, and those that a step returns are saved in its commit.
    """

    reference_key: ClassVar[str]
