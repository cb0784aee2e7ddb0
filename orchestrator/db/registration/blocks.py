"""Register product blocks: the resource types that they hold, and the blocks that they refer to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import Connection, delete, exists, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or_not

from orchestrator.db.registration.history import lock_subscriptions
from orchestrator.db.registration.links import IN_BLOCKS, TYPES
from orchestrator.db.registration.lookup import (
    BLOCK,
    RESOURCE_TYPE,
    check_name,
    check_names,
    find_id,
    rename,
    require_free,
)
from orchestrator.db.registration.resource_values import (
    Values,
    check_choice,
    count_blocks,
    count_values,
    drop_values,
    fill_missing,
    rename_values,
    replace_stored,
)
from orchestrator.db.tables import (
    ProductBlockRelationRow,
    ProductBlockRow,
    ProductProductBlockRow,
    ProductRow,
    ResourceTypeRow,
)
from orchestrator.errors import ConfigurationError
from orchestrator.types import JSON


def register_resource_type(connection: Connection, name: str, description: str = "") -> None:
    """Register a resource type, the name of a value that blocks hold.

    Needed for a description only: registering a block registers the resource types that are new.

    Raises:
        ConfigurationError: the name is taken.
    """
    connection.execute(
        insert(ResourceTypeRow).values(
            resource_type=require_free(connection, RESOURCE_TYPE, name), description=description
        )
    )


def register_product_block(
    connection: Connection,
    *,
    name: str,
    description: str = "",
    tag: str = "",
    resource_types: Iterable[str] = (),
    depends_on: Iterable[str] = (),
    product_block_id: UUID | None = None,
) -> UUID:
    """Register a product block; return its id.

    Args:
        connection: ``op.get_bind()`` in a migration.
        name: as ``product_block_name`` in the code.
        resource_types: the names of the values that it holds; new ones are registered.
        depends_on: the blocks in its own fields; it may be one of them itself.
        product_block_id: its id, if others know it by one already; default a new one.

    Raises:
        ConfigurationError: the name is taken, or a block in ``depends_on`` is not known.
    """
    values = {
        "name": require_free(connection, BLOCK, name),
        "description": description,
        "tag": tag,
        **({} if product_block_id is None else {"product_block_id": product_block_id}),
    }
    block: UUID = connection.execute(
        insert(ProductBlockRow).values(values).returning(ProductBlockRow.product_block_id)
    ).scalar_one()
    add_resource_types(connection, name, resource_types)
    add_block_relations(connection, name, depends_on)
    return block


def rename_product_block(connection: Connection, old: str, new: str) -> None:
    """Rename a product block; the code must use the new name from then on. Subscriptions keep their values.

    Raises:
        ConfigurationError: there is no ``old``, or ``new`` is taken.
    """
    rename(connection, BLOCK, old, new)


def remove_product_block(connection: Connection, name: str) -> None:
    """Delete a product block that nothing refers to, and the resource types that only it held.

    Raises:
        ConfigurationError: the block is not known, a product or another block refers to it, or subscriptions have such blocks:
            taking these out is a workflow's task.
    """
    block = find_id(connection, BLOCK, name)
    lock_subscriptions(connection)
    relation = ProductBlockRelationRow
    products = (
        select(ProductRow.name).join(ProductProductBlockRow).where(ProductProductBlockRow.product_block_id == block)
    )
    blocks = (
        select(ProductBlockRow.name)
        .join(relation, relation.in_use_by_id == ProductBlockRow.product_block_id)
        .where(relation.depends_on_id == block, relation.in_use_by_id != block)
    )
    users = [*sorted(connection.scalars(products)), *sorted(connection.scalars(blocks))]
    if users:
        raise ConfigurationError(
            f"the product block {name!r} is part of {', '.join(map(repr, users))}: take it out there first, with"
            " remove_product_blocks or remove_block_relations"
        )
    count = count_blocks(connection, block)
    if count:
        raise ConfigurationError(
            f"the product block {name!r} cannot be removed: subscriptions have such blocks ({count}), terminated ones"
            " included; a workflow can take them out"
        )
    held = _list_types(connection, block)
    connection.execute(delete(ProductBlockRelationRow).where(ProductBlockRelationRow.depends_on_id == block))
    connection.execute(delete(ProductBlockRow).where(ProductBlockRow.product_block_id == block))
    _delete_unused(connection, held)


def add_resource_types(connection: Connection, block: str, resource_types: Iterable[str]) -> None:
    """Add resource types to a block; new ones are registered. Existing subscriptions lack them: see :func:`fill_values`.

    Raises:
        ConfigurationError: the block is not known.
    """
    identity = find_id(connection, BLOCK, block)
    names = check_names("resource_types", resource_types)
    if names:
        statement = insert_or_not(ResourceTypeRow).on_conflict_do_nothing(index_elements=["resource_type"])
        connection.execute(statement, [{"resource_type": name} for name in names])
    TYPES.add(connection, identity, names)


def remove_resource_types(
    connection: Connection, block: str, resource_types: Iterable[str], *, values: Values = "refuse"
) -> None:
    """Remove resource types from a block, and delete those that no other block holds.

    Args:
        connection: ``op.get_bind()`` in a migration.
        values: ``"drop"`` deletes what subscriptions hold.

    Raises:
        ConfigurationError: the block is not known or lacks one of them, or subscriptions hold values.
    """
    identity = find_id(connection, BLOCK, block)
    check_choice(values)
    names = check_names("resource_types", resource_types)
    _require_held(connection, identity, block, names)
    for name in names:
        _drop_or_refuse(connection, name, [identity], values)
    TYPES.remove(connection, identity, block, names)
    _delete_unused(connection, names)


def remove_resource_type(connection: Connection, name: str, *, values: Values = "refuse") -> None:
    """Delete a resource type from all blocks.

    Args:
        connection: ``op.get_bind()`` in a migration.
        values: ``"drop"`` deletes what subscriptions hold.

    Raises:
        ConfigurationError: it is not known, or subscriptions hold values of it.
    """
    check_choice(values)
    identity = find_id(connection, RESOURCE_TYPE, name)
    _drop_or_refuse(connection, name, _list_blocks_with(connection, identity), values)
    connection.execute(delete(TYPES.member.class_).where(TYPES.member == identity))
    connection.execute(delete(ResourceTypeRow).where(ResourceTypeRow.resource_type_id == identity))


def rename_resource_type(connection: Connection, old: str, new: str, *, block: str | None = None) -> None:
    """Rename a resource type in every block that has it; the values in subscriptions are renamed with it.

    Args:
        connection: ``op.get_bind()`` in a migration.
        block: the only block in which it is renamed. The block may already have the new name as well, as
            long as subscriptions hold no values of it.

    Raises:
        ConfigurationError: there is no ``old``, or ``new`` is taken.
    """
    if block is not None:
        _rename_in_block(connection, old, new, block)
        return
    identity = rename(connection, RESOURCE_TYPE, old, new)
    rename_values(connection, _list_blocks_with(connection, identity), old, new)


def fill_values(connection: Connection, block: str, values: Mapping[str, JSON], *, overwrite: bool = False) -> None:
    """Give blocks in subscriptions a value where they have none, for example of a resource type that has become mandatory.

    What is given is not compared with the models, which a migration outlives: that it fits shows when a subscription is loaded.

    Args:
        connection: ``op.get_bind()`` in a migration.
        block: the name of the block.
        values: resource type -> value.
        overwrite: give it also to those that have another one.

    Raises:
        ConfigurationError: the block is not known or lacks one of the resource types.
    """
    identity = find_id(connection, BLOCK, block)
    _require_held(connection, identity, block, values)
    for name, value in values.items():
        if value is None:
            raise ConfigurationError(f"a missing value of {name!r} in {block!r} cannot be filled with nothing")
        fill_missing(connection, identity, name, value, overwrite=overwrite)


def replace_value(connection: Connection, block: str, resource_type: str, old: JSON, new: JSON) -> None:
    """Give blocks in subscriptions that have a value another one, for example when the model has become stricter.

    As with :func:`fill_values`, that the new value fits shows when a subscription is loaded.

    Args:
        connection: ``op.get_bind()`` in a migration.
        block: the name of the block.
        resource_type: the name of the value.
        old: the value that is replaced.
        new: the value that they get.

    Raises:
        ConfigurationError: the block is not known or lacks the resource type.
    """
    identity = find_id(connection, BLOCK, block)
    _require_held(connection, identity, block, [resource_type])
    if new is None:
        raise ConfigurationError(f"a value of {resource_type!r} in {block!r} cannot be replaced with nothing")
    replace_stored(connection, identity, resource_type, old, new)


def add_block_relations(connection: Connection, block: str, depends_on: Iterable[str]) -> None:
    """Add blocks to those that a block may have in its fields; existing ones stay.

    Raises:
        ConfigurationError: one of the blocks is not known.
    """
    IN_BLOCKS.add(connection, find_id(connection, BLOCK, block), depends_on)


def remove_block_relations(connection: Connection, block: str, depends_on: Iterable[str]) -> None:
    """Remove blocks from those that a block may have in its fields; subscriptions keep their blocks.

    Raises:
        ConfigurationError: one of the blocks is not known, or ``block`` does not refer to it.
    """
    IN_BLOCKS.remove(connection, find_id(connection, BLOCK, block), block, depends_on)


def _rename_in_block(connection: Connection, old: str, new: str, block: str) -> None:
    identity = find_id(connection, BLOCK, block)
    _require_held(connection, identity, block, [old])
    if check_name("resource type", new) == old:
        raise ConfigurationError(f"the resource type {old!r} has that name already")
    lock_subscriptions(connection)
    count = count_values(connection, [identity], new)
    if count:
        raise ConfigurationError(
            f"subscriptions hold values of the resource type {new!r} of {block!r} already ({count}): {old!r} cannot be renamed to"
            " that"
        )
    add_resource_types(connection, block, [new])
    rename_values(connection, [identity], old, new)
    TYPES.remove(connection, identity, block, [old])
    _delete_unused(connection, [old])


def _require_held(connection: Connection, identity: UUID, block: str, names: Iterable[str]) -> None:
    held = _list_types(connection, identity)
    for name in names:
        if check_name("resource type", name) not in held:
            raise ConfigurationError(
                f"the product block {block!r} has no resource type {name!r} (it has {', '.join(held) or 'none'}):"
                " add_resource_types must come first, or the name is wrong"
            )


def _list_types(connection: Connection, block: UUID) -> list[str]:
    query = select(ResourceTypeRow.resource_type).join(TYPES.member.class_).where(TYPES.holder == block)
    return sorted(connection.scalars(query))


def _list_blocks_with(connection: Connection, resource_type: UUID) -> list[UUID]:
    return list(connection.scalars(select(TYPES.holder).where(TYPES.member == resource_type)))


def _drop_or_refuse(connection: Connection, name: str, blocks: list[UUID], values: Values) -> None:
    lock_subscriptions(connection)
    count = count_values(connection, blocks, name)
    if count and values == "refuse":
        raise ConfigurationError(
            f"subscriptions hold values of the resource type {name!r} ({count}): values='drop' deletes these, for good;"
            " if it only got another name, use rename_resource_type"
        )
    drop_values(connection, blocks, name)


def _delete_unused(connection: Connection, names: Iterable[str]) -> None:
    held = exists().where(TYPES.member == ResourceTypeRow.resource_type_id)
    connection.execute(delete(ResourceTypeRow).where(ResourceTypeRow.resource_type.in_(list(names)), ~held))
