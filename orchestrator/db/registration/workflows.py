"""Register workflows, and link them to products. A product has one workflow at most of each kind but MODIFY."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_not

from orchestrator.db.registration.lookup import (
    PRODUCT,
    WORKFLOW,
    check_name,
    check_names,
    find_id,
    find_ids,
    has_catalogue,
    require_catalogue,
    require_free,
)
from orchestrator.db.tables import SINGLE_TARGETS, ProductRow, ProductWorkflowRow, WorkflowRow
from orchestrator.errors import ConfigurationError
from orchestrator.targets import Target


def register_workflow(
    connection: Connection,
    *,
    name: str,
    target: Target | str,
    is_task: bool | None = None,
    description: str = "",
    products: Iterable[str] | None = None,
    product_type: str | None = None,
    workflow_id: UUID | None = None,
) -> None:
    """Register a workflow, so that it can be started, and link it to products.

    Args:
        connection: ``op.get_bind()`` in a migration.
        name: as in the code's ``LazyWorkflowInstance``.
        target: what it is for.
        is_task: default for ``VALIDATE`` only, whose workflows are tasks.
        products: the names of the products that have it.
        product_type: instead of ``products``: all that there are of this type now.
        workflow_id: its id, if others know it by one already; default a new one.

    Raises:
        ConfigurationError: the name is taken, a product is not known, or one of them has a workflow of this kind already.
    """
    kind = _check_target(name, target)
    require_free(connection, WORKFLOW, name)
    names = _list_products(connection, name, products, product_type)
    connection.execute(
        insert(WorkflowRow).values(
            name=name,
            target=kind.value,
            is_task=kind is Target.VALIDATE if is_task is None else is_task,
            description=description,
            **({} if workflow_id is None else {"workflow_id": workflow_id}),
        )
    )
    if names:
        link_workflow(connection, name, names)


def register_task(
    connection: Connection, *, name: str, description: str = "", target: Target | str = Target.SYSTEM
) -> None:
    """Register a task, so that it can be started.

    A task of no product has the target ``SYSTEM``; one that validates subscriptions has ``VALIDATE``.

    Raises:
        ConfigurationError: the name is taken, or the target is for workflows.
    """
    if _check_target(name, target) not in {Target.SYSTEM, Target.VALIDATE}:
        raise ConfigurationError(f"the task {name!r} is for SYSTEM or VALIDATE, not {target!r}: use register_workflow")
    register_workflow(connection, name=name, target=target, is_task=True, description=description)


def register_default_workflow(
    connection: Connection, *, name: str, description: str = "", target: Target | str = Target.MODIFY
) -> None:
    """Register a workflow and link it to all products.

    Later products get it, too, while ``DEFAULT_PRODUCT_WORKFLOWS`` names it: each ``orchestrator db upgrade`` sees to that.

    Raises:
        ConfigurationError: as :func:`register_workflow`.
    """
    require_catalogue(connection)
    every = connection.scalars(select(ProductRow.name)).all()
    register_workflow(connection, name=name, target=target, description=description, products=every)


def remove_workflow(connection: Connection, name: str) -> None:
    """Remove a workflow: it can no longer be started, and its products can have another one in its place.

    The row stays, because past processes refer to it.

    Raises:
        ConfigurationError: there is none of that name.
    """
    identity = find_id(connection, WORKFLOW, name)
    # A project's first migration may run before the engine's that makes the links' table; then there are none.
    if has_catalogue(connection):
        connection.execute(delete(ProductWorkflowRow).where(ProductWorkflowRow.workflow_id == identity))
    connection.execute(update(WorkflowRow).where(WorkflowRow.workflow_id == identity).values(deleted_at=func.now()))


def link_workflow(connection: Connection, workflow: str, products: Iterable[str]) -> None:
    """Link a workflow to products; existing links stay.

    Raises:
        ConfigurationError: the workflow or a product is not known, the workflow is of no product, or a product has another of
            its kind, of which it may have one only; the text names both.
    """
    wanted = find_ids(connection, PRODUCT, check_names("products", products))
    identity = find_id(connection, WORKFLOW, workflow)
    target = connection.execute(select(WorkflowRow.target).where(WorkflowRow.workflow_id == identity)).scalar_one()
    if target == Target.SYSTEM.value:
        raise ConfigurationError(
            f"{workflow!r} has the target SYSTEM and so belongs to no product: it cannot be linked"
        )
    if not wanted:
        return
    if target in SINGLE_TARGETS:
        _refuse_second(connection, workflow, identity, target, wanted)
    rows = [{"product_id": product, "workflow_id": identity, "target": target} for product in wanted.values()]
    connection.execute(
        insert_or_not(ProductWorkflowRow).on_conflict_do_nothing(index_elements=["product_id", "workflow_id"]), rows
    )


def unlink_workflow(connection: Connection, workflow: str, products: Iterable[str]) -> None:
    """Unlink a workflow from products; products that are not linked to it are skipped.

    Raises:
        ConfigurationError: the workflow or a product is not known.
    """
    unwanted = find_ids(connection, PRODUCT, check_names("products", products))
    connection.execute(
        delete(ProductWorkflowRow).where(
            ProductWorkflowRow.workflow_id == find_id(connection, WORKFLOW, workflow),
            ProductWorkflowRow.product_id.in_(unwanted.values()),
        )
    )


def link_default_workflows(connection: Connection, workflows: Iterable[str]) -> None:
    """Link each of these workflows to all products; names that no migration has registered yet are skipped.

    Each ``orchestrator db upgrade`` ends with this; migrations need not call it.

    Raises:
        ConfigurationError: as :func:`link_workflow`.
    """
    if not has_catalogue(connection):
        return
    names = tuple(workflows)
    known = set(connection.scalars(select(WorkflowRow.name).where(WorkflowRow.name.in_(names), *WORKFLOW.condition)))
    every = connection.scalars(select(ProductRow.name)).all()
    for name in names:
        if name in known:
            try:
                link_workflow(connection, name, every)
            except ConfigurationError as error:
                raise ConfigurationError(f"DEFAULT_PRODUCT_WORKFLOWS names {name!r}, but {error}") from error


def describe_second_workflow(product: str, target: str, first: str, second: str) -> str:
    """Return why a product cannot have two workflows of a kind."""
    return (
        f"the product {product!r} would have two {target} workflows, {first!r} and {second!r}, but may have one at most:"
        " unlink or remove one of them first"
    )


def _refuse_second(
    connection: Connection, workflow: str, identity: UUID, target: str, products: Mapping[str, UUID]
) -> None:
    other = connection.execute(
        select(ProductRow.name, WorkflowRow.name)
        .join(ProductWorkflowRow, ProductWorkflowRow.product_id == ProductRow.product_id)
        .join(WorkflowRow, WorkflowRow.workflow_id == ProductWorkflowRow.workflow_id)
        .where(
            ProductWorkflowRow.product_id.in_(products.values()),
            ProductWorkflowRow.target == target,
            ProductWorkflowRow.workflow_id != identity,
        )
        .order_by(ProductRow.name)
        .limit(1)
    ).first()
    if other is not None:
        raise ConfigurationError(describe_second_workflow(other[0], target, other[1], workflow))


def _check_target(workflow: str, target: Target | str) -> Target:
    try:
        return Target(target)
    except ValueError:
        raise ConfigurationError(
            f"the target of the workflow {workflow!r} is one of {', '.join(Target)}, not {target!r}"
        ) from None


def _list_products(
    connection: Connection, workflow: str, products: Iterable[str] | None, product_type: str | None
) -> tuple[str, ...]:
    if product_type is None:
        return () if products is None else check_names("products", products)
    if products is not None:
        raise ConfigurationError(f"the workflow {workflow!r} gets either products or a product_type, not both")
    require_catalogue(connection)
    of_type = connection.scalars(
        select(ProductRow.name).where(ProductRow.product_type == check_name("product type", product_type))
    ).all()
    if not of_type:
        types = connection.scalars(select(ProductRow.product_type).distinct().order_by(ProductRow.product_type)).all()
        raise ConfigurationError(
            f"the database has no product of the type {product_type!r} for the workflow {workflow!r}"
            f" (types: {', '.join(types) or 'none'})"
        )
    return tuple(of_type)
