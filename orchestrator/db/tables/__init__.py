"""The tables, as SQLAlchemy models. The migrations make them; a test holds the two against each other."""

from __future__ import annotations

from orchestrator.db.tables.access import ApiKeyRow, BrowserSessionRow
from orchestrator.db.tables.base import Base, as_text, columns_of
from orchestrator.db.tables.engine import (
    CallbackRow,
    CommandRow,
    ConsumerRow,
    DeadLetterRow,
    DeletedProcessRow,
    EngineSettingsRow,
    LogRow,
    PlanRow,
    ProcessRow,
    SettingsChangeRow,
    WorkflowRow,
)
from orchestrator.db.tables.products import (
    SINGLE_TARGETS,
    FixedInputRow,
    MetadataChangeRow,
    ProductBlockRelationRow,
    ProductBlockResourceTypeRow,
    ProductBlockRow,
    ProductProductBlockRow,
    ProductRow,
    ProductWorkflowRow,
    ResourceTypeRow,
)
from orchestrator.db.tables.schedules import (
    ScheduleChangeRow,
    ScheduleDeclarationRow,
    ScheduleRow,
    ScheduleSlotRow,
)
from orchestrator.db.tables.subscriptions import (
    ProcessSubscriptionRow,
    SubscriptionChangeRow,
    SubscriptionInstanceRelationRow,
    SubscriptionInstanceRow,
    SubscriptionRootRow,
    SubscriptionRow,
)

__all__ = [
    "SINGLE_TARGETS",
    "ApiKeyRow",
    "Base",
    "BrowserSessionRow",
    "CallbackRow",
    "CommandRow",
    "ConsumerRow",
    "DeadLetterRow",
    "DeletedProcessRow",
    "EngineSettingsRow",
    "FixedInputRow",
    "LogRow",
    "MetadataChangeRow",
    "PlanRow",
    "ProcessRow",
    "ProcessSubscriptionRow",
    "ProductBlockRelationRow",
    "ProductBlockResourceTypeRow",
    "ProductBlockRow",
    "ProductProductBlockRow",
    "ProductRow",
    "ProductWorkflowRow",
    "ResourceTypeRow",
    "ScheduleChangeRow",
    "ScheduleDeclarationRow",
    "ScheduleRow",
    "ScheduleSlotRow",
    "SettingsChangeRow",
    "SubscriptionChangeRow",
    "SubscriptionInstanceRelationRow",
    "SubscriptionInstanceRow",
    "SubscriptionRootRow",
    "SubscriptionRow",
    "WorkflowRow",
    "as_text",
    "columns_of",
]
