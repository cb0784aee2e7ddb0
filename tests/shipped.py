"""The workflows that ship with the engine, and that its migrations register."""

from __future__ import annotations

from typing import Final

SHIPPED: Final = (
    "modify_note",
    "task_clean_up_tasks",
    "task_resume_workflows",
    "task_validate_product_type",
    "task_validate_products",
    "task_validate_subscriptions",
)
"""By name."""
