"""Six single-purpose examples. ``ORCHESTRATOR_WORKFLOWS=examples.recipes`` registers their workflows."""

from __future__ import annotations

from orchestrator.workflows import LazyWorkflowInstance

LazyWorkflowInstance("examples.recipes.retry_policy", "read_version")
LazyWorkflowInstance("examples.recipes.callback_with_pika", "measure_line")
LazyWorkflowInstance("examples.recipes.input_from_database", "place_router")
LazyWorkflowInstance("examples.recipes.count_racks", "count_free_racks")
