"""Helpers for migrations, where orchestrator-core has them, so that a project's old migrations run with other imports only.

Only for migrations that exist; new ones import from :mod:`orchestrator.db.registration`.
"""

from __future__ import annotations

from orchestrator.db.registration.dictionaries import (
    add_product_block_relation_between_products_by_id,
    add_products_to_workflow_by_product_tag,
    create,
    create_fixed_inputs,
    create_product_blocks,
    create_products,
    create_resource_types_for_product_blocks,
    create_task,
    create_workflow,
    create_workflows,
    delete,
    delete_product,
    delete_product_block,
    delete_resource_type,
    delete_resource_types,
    delete_resource_types_from_product_blocks,
    delete_workflow,
    ensure_default_workflows,
    get_product_block_id_by_name,
    get_product_id_by_name,
    get_product_ids_by_product_type,
    get_resource_type_id_by_name,
    has_table_column,
    insert_resource_type,
    remove_product_block_relation_between_products_by_id,
    remove_products_from_workflow_by_product_tag,
)

__all__ = [
    "add_product_block_relation_between_products_by_id",
    "add_products_to_workflow_by_product_tag",
    "create",
    "create_fixed_inputs",
    "create_product_blocks",
    "create_products",
    "create_resource_types_for_product_blocks",
    "create_task",
    "create_workflow",
    "create_workflows",
    "delete",
    "delete_product",
    "delete_product_block",
    "delete_resource_type",
    "delete_resource_types",
    "delete_resource_types_from_product_blocks",
    "delete_workflow",
    "ensure_default_workflows",
    "get_product_block_id_by_name",
    "get_product_id_by_name",
    "get_product_ids_by_product_type",
    "get_resource_type_id_by_name",
    "has_table_column",
    "insert_resource_type",
    "remove_product_block_relation_between_products_by_id",
    "remove_products_from_workflow_by_product_tag",
]
