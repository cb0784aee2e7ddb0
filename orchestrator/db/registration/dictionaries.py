"""Register what migrations written for orchestrator-core describe in dicts, so that those of a project run as they are.

Names, arguments and keys are those of ``orchestrator.migrations.helpers`` there. As there, what is registered already is left
alone, and what is not there is not removed. What subscriptions hold is never deleted: then these raise ``ConfigurationError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, insert, select, text
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert as insert_or_not

from orchestrator.db.registration.blocks import (
    add_block_relations,
    add_resource_types,
    register_product_block,
    remove_product_block,
    remove_resource_type,
    remove_resource_types,
)
from orchestrator.db.registration.links import IN_BLOCKS, IN_PRODUCTS
from orchestrator.db.registration.lookup import (
    BLOCK,
    PRODUCT,
    RESOURCE_TYPE,
    WORKFLOW,
    find_id,
    find_optional,
)
from orchestrator.db.registration.products import register_product, remove_product, set_fixed_inputs
from orchestrator.db.registration.workflows import (
    link_default_workflows,
    link_workflow,
    register_workflow,
    remove_workflow,
    unlink_workflow,
)
from orchestrator.db.tables import ProductBlockRow, ProductRow, ResourceTypeRow
from orchestrator.settings import load_settings
from orchestrator.targets import Target

Described = Mapping[str, Any]
"""What a migration says of something, by the keys of orchestrator-core."""


def create(conn: Connection, new: Described) -> None:
    """Register ``product_blocks``, ``products``, ``resources`` and ``workflows``, and link the default workflows to all products.

    Raises:
        ConfigurationError: a block that is named is not known, or a product would have two workflows of a kind.
    """
    blocks: Mapping[str, Described] = new.get("product_blocks", {})
    create_product_blocks(conn, blocks)
    create_products(conn, new.get("products", {}))
    create_resource_types_for_product_blocks(conn, new.get("resources", {}))
    create_workflows(conn, new.get("workflows", {}))
    ensure_default_workflows(conn)


def create_product_blocks(conn: Connection, new: Mapping[str, Described]) -> dict[str, UUID]:
    """Register product blocks, with their ``resources`` or ``resource_types`` and their relations; return their ids.

    Raises:
        ConfigurationError: a block in ``depends_on_block_relations`` or ``in_use_by_block_relations`` is not known.
    """
    for name, block in new.items():
        if find_optional(conn, BLOCK, name) is None:
            register_product_block(
                conn,
                name=name,
                description=block.get("description") or "",
                tag=block.get("tag") or "",
                product_block_id=_id(block.get("product_block_id")),
            )
        for types in ("resources", "resource_types"):
            create_resource_types_for_product_blocks(conn, {name: block.get(types) or {}})
    for name, block in new.items():  # after all of them, because they may refer to each other
        add_block_relations(conn, name, block.get("depends_on_block_relations") or ())
        for user in block.get("in_use_by_block_relations") or ():
            add_block_relations(conn, user, [name])
    return {name: find_id(conn, BLOCK, name) for name in new}


def create_products(conn: Connection, new: Mapping[str, Described]) -> dict[str, UUID]:
    """Register products with their ``fixed_inputs`` and blocks; return their ids.

    Raises:
        ConfigurationError: a block in ``root_product_block``, ``product_blocks`` or ``product_block_ids`` is not known.
    """
    for name, product in new.items():
        if find_optional(conn, PRODUCT, name) is not None:
            continue
        root = product.get("root_product_block")
        register_product(
            conn,
            name=name,
            product_type=product["product_type"],
            description=product.get("description") or "",
            tag=product.get("tag") or "",
            fixed_inputs=_without_ids(product.get("fixed_inputs") or {}),
            product_blocks=[root] if root else product.get("product_blocks") or (),
            product_id=_id(product.get("product_id")),
        )
        if not root:
            ids = {_id(one) for one in product.get("product_block_ids") or ()}
            named = select(ProductBlockRow.name).where(ProductBlockRow.product_block_id.in_(ids))
            IN_PRODUCTS.add(conn, find_id(conn, PRODUCT, name), conn.scalars(named).all())
    return {name: find_id(conn, PRODUCT, name) for name in new}


def create_fixed_inputs(conn: Connection, product_id: UUID | str, new: Described) -> None:
    """Set fixed inputs of a product. They have no ids of their own: one that is given with a value is ignored.

    Raises:
        ConfigurationError: a value cannot be kept.
    """
    name = conn.execute(select(ProductRow.name).where(ProductRow.product_id == _id(product_id))).scalar_one()
    set_fixed_inputs(conn, name, _without_ids(new))


def create_resource_types_for_product_blocks(conn: Connection, new: Mapping[str, Described]) -> list[UUID]:
    """Register resource types, each ``{name: description}`` or ``{name: (description, id)}``, for blocks; return their ids.

    Raises:
        ConfigurationError: a block is not known.
    """
    found = []
    for block, types in new.items():
        for name, described in types.items():
            description, identity = described if isinstance(described, tuple) else (described, None)
            insert_resource_type(conn, name, description, identity)
            found.append(find_id(conn, RESOURCE_TYPE, name))
        add_resource_types(conn, block, list(types))
    return found


def insert_resource_type(
    conn: Connection, resource_type: str, description: str, resource_type_id: UUID | str | None = None
) -> None:
    """Register a resource type."""
    values: dict[str, Any] = {"resource_type": resource_type, "description": description or ""}
    if resource_type_id is not None:
        values["resource_type_id"] = _id(resource_type_id)
    conn.execute(insert_or_not(ResourceTypeRow).on_conflict_do_nothing(index_elements=["resource_type"]).values(values))


def create_workflow(conn: Connection, workflow: Described) -> None:
    """Register a workflow, and link it to all products of its ``product_type``, if it has one.

    Raises:
        ConfigurationError: a product has another workflow of this kind.
    """
    of_type = workflow.get("product_type")
    products = [] if of_type is None else _list_products(conn, ProductRow.product_type == of_type)
    _register(conn, workflow["name"], workflow, products)


def create_workflows(conn: Connection, new: Mapping[str, Described]) -> None:
    """Register workflows, and link each to the products with its ``tag`` whose names are like its ``search_phrase``.

    Raises:
        ConfigurationError: a product has another workflow of this kind.
    """
    for name, workflow in new.items():
        like = ProductRow.name.like(workflow.get("search_phrase") or "%")
        _register(conn, name, workflow, _list_products(conn, ProductRow.tag == workflow.get("tag"), like))


def create_task(conn: Connection, task: Described) -> None:
    """Register a task of no product."""
    _register(conn, task["name"], {**task, "target": Target.SYSTEM}, ())


def ensure_default_workflows(conn: Connection) -> None:
    """Link the workflows of ``DEFAULT_PRODUCT_WORKFLOWS`` to all products, as each ``orchestrator db upgrade`` does.

    Raises:
        ConfigurationError: a product has another workflow of the same kind.
    """
    link_default_workflows(conn, load_settings().default_product_workflows)


def add_products_to_workflow_by_product_tag(
    conn: Connection, workflow_name: str, product_tag: str, product_name_like: str = "%"
) -> None:
    """Link a workflow to the products with a tag.

    Raises:
        ConfigurationError: the workflow is not known, or a product has another one of its kind.
    """
    link_workflow(conn, workflow_name, _list_tagged(conn, product_tag, product_name_like))


def remove_products_from_workflow_by_product_tag(
    conn: Connection, workflow_name: str, product_tag: str, product_name_like: str = "%"
) -> None:
    """Unlink a workflow from the products with a tag.

    Raises:
        ConfigurationError: the workflow is not known.
    """
    unlink_workflow(conn, workflow_name, _list_tagged(conn, product_tag, product_name_like))


def add_product_block_relation_between_products_by_id(
    conn: Connection, in_use_by_id: UUID | str, depends_on_id: UUID | str
) -> None:
    """Let a block have another one in its fields."""
    values = {IN_BLOCKS.holder.key: _id(in_use_by_id), IN_BLOCKS.member.key: _id(depends_on_id)}
    conn.execute(insert(IN_BLOCKS.holder.class_).values(values))


def remove_product_block_relation_between_products_by_id(
    conn: Connection, in_use_by_id: UUID | str, depends_on_id: UUID | str
) -> None:
    """Take a block out of those that another one may have in its fields."""
    conn.execute(
        delete_from(IN_BLOCKS.holder.class_).where(
            IN_BLOCKS.holder == _id(in_use_by_id), IN_BLOCKS.member == _id(depends_on_id)
        )
    )


def delete(conn: Connection, obsolete: Mapping[str, Iterable[str]]) -> None:
    """Remove ``resource_types``, ``product_blocks``, ``products`` and ``workflows``, each a list or a dict of names.

    Raises:
        ConfigurationError: subscriptions hold something of it.
    """
    for name in obsolete.get("resource_types", ()):
        delete_resource_type(conn, name)
    for name in obsolete.get("product_blocks", ()):
        delete_product_block(conn, name)
    for name in obsolete.get("products", ()):
        delete_product(conn, name)
    for name in obsolete.get("workflows", ()):
        delete_workflow(conn, name)


def delete_product(conn: Connection, name: str) -> None:
    """Remove a product.

    Raises:
        ConfigurationError: it has subscriptions.
    """
    if find_optional(conn, PRODUCT, name) is not None:
        remove_product(conn, name)


def delete_product_block(conn: Connection, name: str) -> None:
    """Remove a block, also from the products and blocks that have it.

    Raises:
        ConfigurationError: subscriptions have such blocks.
    """
    block = find_optional(conn, BLOCK, name)
    if block is not None:
        for links in (IN_PRODUCTS, IN_BLOCKS):
            conn.execute(delete_from(links.member.class_).where(links.member == block))
        remove_product_block(conn, name)


def delete_resource_type(conn: Connection, resource_type: str) -> None:
    """Remove a resource type from all blocks.

    Raises:
        ConfigurationError: subscriptions hold values of it.
    """
    if find_optional(conn, RESOURCE_TYPE, resource_type) is not None:
        remove_resource_type(conn, resource_type)


def delete_resource_types(conn: Connection, delete: Iterable[str]) -> None:
    """Remove resource types from all blocks.

    Raises:
        ConfigurationError: subscriptions hold values of one.
    """
    for name in delete:
        delete_resource_type(conn, name)


def delete_resource_types_from_product_blocks(conn: Connection, delete: Mapping[str, Iterable[str]]) -> None:
    """Remove resource types from blocks.

    Raises:
        ConfigurationError: a block is not known or lacks one of them, or subscriptions hold values.
    """
    for block, types in delete.items():
        remove_resource_types(conn, block, list(types))


def delete_workflow(conn: Connection, name: str) -> None:
    """Remove a workflow: it can no longer be started. Its row stays, because past processes refer to it."""
    if find_optional(conn, WORKFLOW, name) is not None:
        remove_workflow(conn, name)


def get_product_id_by_name(conn: Connection, name: str) -> UUID:
    """Return the id of a product.

    Raises:
        ConfigurationError: there is none of that name.
    """
    return find_id(conn, PRODUCT, name)


def get_product_block_id_by_name(conn: Connection, name: str) -> UUID:
    """Return the id of a block.

    Raises:
        ConfigurationError: there is none of that name.
    """
    return find_id(conn, BLOCK, name)


def get_resource_type_id_by_name(conn: Connection, name: str) -> UUID:
    """Return the id of a resource type.

    Raises:
        ConfigurationError: there is none of that name.
    """
    return find_id(conn, RESOURCE_TYPE, name)


def get_product_ids_by_product_type(conn: Connection, product_type: str) -> list[UUID]:
    """Return the ids of the products of a type."""
    return list(conn.scalars(select(ProductRow.product_id).where(ProductRow.product_type == product_type)))


def has_table_column(table_name: str, column_name: str, conn: Connection) -> bool:
    """Return whether a table has a column."""
    query = "SELECT 1 FROM information_schema.columns WHERE table_name = :table AND column_name = :column"
    return conn.execute(text(query), {"table": table_name, "column": column_name}).first() is not None


def _register(conn: Connection, name: str, workflow: Described, products: Iterable[str]) -> None:
    if find_optional(conn, WORKFLOW, name) is not None:
        return
    target = Target(workflow["target"])
    wanted = list(products)
    if target is Target.SYSTEM and wanted:
        # Before version 4 there was no VALIDATE, and its guide tells a validation by this name. What else has the target SYSTEM
        # belongs to no product.
        target, wanted = (Target.VALIDATE, wanted) if name.startswith("validate_") else (target, [])
    register_workflow(
        conn,
        name=name,
        target=target,
        is_task=bool(workflow.get("is_task")) or target in {Target.SYSTEM, Target.VALIDATE},
        description=workflow.get("description") or "",
        products=wanted,
        workflow_id=_id(workflow.get("workflow_id")),
    )


def _list_products(conn: Connection, *conditions: ColumnElement[bool]) -> list[str]:
    return list(conn.scalars(select(ProductRow.name).where(*conditions)))


def _list_tagged(conn: Connection, tag: str, like: str) -> list[str]:
    return _list_products(conn, ProductRow.tag == tag, ProductRow.name.like(like))


def _without_ids(fixed_inputs: Described) -> Described:
    return {name: value[0] if isinstance(value, tuple) else value for name, value in fixed_inputs.items()}


def _id(value: UUID | str | None) -> UUID | None:
    return UUID(str(value)) if value is not None else None
