"""Register products, product blocks, resource types and workflows in migrations.

Synchronous, because Alembic's migrations are; the first argument is ``op.get_bind()``. Each function checks its arguments and
raises ``ConfigurationError`` with what to do. Functions name the columns that they use, so that a project's old migrations
still run when a later version of the engine has added columns.
"""

from __future__ import annotations

from orchestrator.db.registration.block_fields import drop_block_field, rename_block_field
from orchestrator.db.registration.blocks import (
    add_block_relations,
    add_resource_types,
    fill_values,
    register_product_block,
    register_resource_type,
    remove_block_relations,
    remove_product_block,
    remove_resource_type,
    remove_resource_types,
    rename_product_block,
    rename_resource_type,
    replace_value,
)
from orchestrator.db.registration.products import (
    add_product_blocks,
    register_product,
    reinstate_product,
    remove_fixed_inputs,
    remove_product,
    remove_product_blocks,
    rename_product,
    retire_product,
    set_fixed_inputs,
)
from orchestrator.db.registration.workflows import (
    link_default_workflows,
    link_workflow,
    register_default_workflow,
    register_task,
    register_workflow,
    remove_workflow,
    unlink_workflow,
)

__all__ = [
    "add_block_relations",
    "add_product_blocks",
    "add_resource_types",
    "drop_block_field",
    "fill_values",
    "link_default_workflows",
    "link_workflow",
    "register_default_workflow",
    "register_product",
    "register_product_block",
    "register_resource_type",
    "register_task",
    "register_workflow",
    "reinstate_product",
    "remove_block_relations",
    "remove_fixed_inputs",
    "remove_product",
    "remove_product_block",
    "remove_product_blocks",
    "remove_resource_type",
    "remove_resource_types",
    "remove_workflow",
    "rename_block_field",
    "rename_product",
    "rename_product_block",
    "rename_resource_type",
    "replace_value",
    "retire_product",
    "set_fixed_inputs",
    "unlink_workflow",
]
