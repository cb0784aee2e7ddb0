"""Register products with their fixed inputs and blocks; rename, retire and remove them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_not

from orchestrator.db.registration.history import lock_subscriptions
from orchestrator.db.registration.links import IN_PRODUCTS
from orchestrator.db.registration.lookup import (
    BLOCK,
    PRODUCT,
    check_name,
    check_names,
    find_id,
    find_ids,
    format_value,
    rename,
    require_free,
)
from orchestrator.db.registration.workflows import link_workflow
from orchestrator.db.tables import FixedInputRow, ProductRow, SubscriptionRow
from orchestrator.errors import ConfigurationError

ACTIVE, END_OF_LIFE, NOT_IN_CODE = "active", "end_of_life", "not_in_code"
"""Of a product: whether new subscriptions of it can be made, and if not, whether that is meant to stay so."""


def register_product(
    connection: Connection,
    *,
    name: str,
    product_type: str,
    description: str = "",
    tag: str = "",
    fixed_inputs: Mapping[str, object] | None = None,
    product_blocks: Iterable[str] = (),
    workflows: Iterable[str] = (),
    product_id: UUID | None = None,
) -> UUID:
    """Register a product that customers can subscribe to; return its id.

    Args:
        connection: ``op.get_bind()`` in a migration.
        name: as in ``SUBSCRIPTION_MODEL_REGISTRY``.
        product_type: what it has in common with the products of the same model, for example ``"Node"``.
        fixed_inputs: what distinguishes it from these: name → value, as text.
        product_blocks: the blocks in fields of the subscription itself, without the blocks inside these.
        workflows: the workflows that it has, besides the default ones.
        product_id: its id, if others know it by one already; default a new one.

    Raises:
        ConfigurationError: the name is taken, a block or workflow is not known, or two workflows are of a kind of which a
            product has one at most.
    """
    values = {
        "name": require_free(connection, PRODUCT, name),
        "product_type": check_name("product type", product_type),
        "description": description,
        "tag": tag,
        **({} if product_id is None else {"product_id": product_id}),
    }
    inputs = _check_fixed_inputs(name, fixed_inputs or {})
    blocks = check_names("product_blocks", product_blocks)
    find_ids(connection, BLOCK, blocks)
    product: UUID = connection.execute(insert(ProductRow).values(values).returning(ProductRow.product_id)).scalar_one()
    set_fixed_inputs(connection, name, inputs)
    add_product_blocks(connection, name, blocks)
    for workflow in check_names("workflows", workflows):
        link_workflow(connection, workflow, [name])
    return product


def retire_product(connection: Connection, name: str, *, for_good: bool = True) -> None:
    """Retire a product: it gets no new subscriptions. Existing ones stay, and so do its workflows.

    Its model must stay in ``SUBSCRIPTION_MODEL_REGISTRY`` until the last of them has ended: without one none can be loaded.

    Args:
        connection: ``op.get_bind()`` in a migration.
        for_good: ``False`` for a product that the code lacks: when it is back there, ``orchestrator db migrate-domain-models``
            reinstates it.

    Raises:
        ConfigurationError: there is none of that name.
    """
    product = find_id(connection, PRODUCT, name)
    status = END_OF_LIFE if for_good else NOT_IN_CODE
    connection.execute(
        update(ProductRow)
        .where(ProductRow.product_id == product, ProductRow.status != status)
        .values(status=status, end_date=func.coalesce(ProductRow.end_date, func.now()))
    )


def reinstate_product(connection: Connection, name: str) -> None:
    """Undo :func:`retire_product`.

    Raises:
        ConfigurationError: there is none of that name.
    """
    product = find_id(connection, PRODUCT, name)
    connection.execute(update(ProductRow).where(ProductRow.product_id == product).values(status=ACTIVE, end_date=None))


def rename_product(connection: Connection, old: str, new: str) -> None:
    """Rename a product; the code's registry must use the new name from then on.

    Raises:
        ConfigurationError: there is no ``old``, or ``new`` is taken.
    """
    rename(connection, PRODUCT, old, new)


def remove_product(connection: Connection, name: str) -> None:
    """Delete a product that has never had a subscription, with its fixed inputs and links; its blocks stay.

    Raises:
        ConfigurationError: there is none of that name, or there are subscriptions.
    """
    product = find_id(connection, PRODUCT, name)
    lock_subscriptions(connection)
    count = connection.scalar(
        select(func.count()).select_from(SubscriptionRow).where(SubscriptionRow.product_id == product)
    )
    if count:
        raise ConfigurationError(
            f"the product {name!r} has subscriptions ({count}), terminated ones included, so it cannot be removed:"
            " retire_product lets no new ones be made"
        )
    connection.execute(delete(ProductRow).where(ProductRow.product_id == product))


def set_fixed_inputs(connection: Connection, product: str, fixed_inputs: Mapping[str, object]) -> None:
    """Set fixed inputs of a product, new or not; others stay. All its subscriptions have the new value at once.

    Raises:
        ConfigurationError: the product is not known, or a value cannot be kept.
    """
    identity = find_id(connection, PRODUCT, product)
    rows = [
        {"product_id": identity, "name": name, "value": value}
        for name, value in _check_fixed_inputs(product, fixed_inputs).items()
    ]
    if rows:
        statement = insert_or_not(FixedInputRow)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["product_id", "name"], set_={"value": statement.excluded.value}
            ),
            rows,
        )


def remove_fixed_inputs(connection: Connection, product: str, names: Iterable[str]) -> None:
    """Remove fixed inputs from a product.

    Raises:
        ConfigurationError: the product is not known, or lacks one of them.
    """
    identity = find_id(connection, PRODUCT, product)
    unwanted = check_names("names", names)
    gone = connection.scalars(
        delete(FixedInputRow)
        .where(FixedInputRow.product_id == identity, FixedInputRow.name.in_(unwanted))
        .returning(FixedInputRow.name)
    ).all()
    missing = sorted(set(unwanted) - set(gone))
    if missing:
        raise ConfigurationError(f"the product {product!r} has no fixed input {missing[0]!r}")


def add_product_blocks(connection: Connection, product: str, product_blocks: Iterable[str]) -> None:
    """Add blocks to those that subscriptions of a product may have in their own fields; existing ones stay.

    Raises:
        ConfigurationError: the product or a block is not known.
    """
    IN_PRODUCTS.add(connection, find_id(connection, PRODUCT, product), product_blocks)


def remove_product_blocks(connection: Connection, product: str, product_blocks: Iterable[str]) -> None:
    """Remove blocks from those that subscriptions of a product may have in their own fields; existing blocks stay.

    Raises:
        ConfigurationError: the product or a block is not known, or the product lacks the block.
    """
    IN_PRODUCTS.remove(connection, find_id(connection, PRODUCT, product), product, product_blocks)


def _check_fixed_inputs(product: str, fixed_inputs: Mapping[str, object]) -> dict[str, str]:
    if not isinstance(fixed_inputs, Mapping):
        raise ConfigurationError(
            f"the fixed inputs of {product!r} are a dict of names and values, such as {{'speed': '1000'}},"
            f" not {fixed_inputs!r}"
        )
    return {
        check_name("fixed input", name): format_value(f"the fixed input {name!r} of {product!r}", value)
        for name, value in fixed_inputs.items()
    }
