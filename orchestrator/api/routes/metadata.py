"""Look at products, product blocks, resource types and workflows; change their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.problems import Responses
from orchestrator.db import metadata
from orchestrator.errors import DefinitionError, NotFoundError
from orchestrator.registry import plan_of

router = Router(tags=["metadata"])

_NOT_FOUND: Final[Responses] = {404: {"description": "There is none with this id or name."}}

Reader = Annotated[Caller, requires(Role.READ)]
Admin = Annotated[Caller, requires(Role.ADMIN)]
Wanted = Annotated[str, Path(description="Its id, or its name.", max_length=300, pattern=r"^[^\x00]*$")]


class Named(BaseModel):
    """A product block, in short."""

    product_block_id: UUID
    name: str


class FixedInput(BaseModel):
    """A property of a product that no subscription changes."""

    name: str
    value: str


class BlockReference(Named):
    """A product block with its description."""

    description: str
    tag: str
    status: str


class WorkflowReference(BaseModel):
    """A workflow, in short."""

    workflow_id: UUID
    name: str
    target: str
    is_task: bool
    description: str


class ProductItem(BaseModel):
    """A product with its blocks and workflows."""

    product_id: UUID
    name: str
    description: str
    product_type: str
    tag: str
    status: str
    created_at: datetime
    end_date: datetime | None
    fixed_inputs: list[FixedInput]
    product_blocks: list[BlockReference]
    workflows: list[WorkflowReference]


class TypeReference(BaseModel):
    """A resource type, in short."""

    resource_type_id: UUID
    resource_type: str
    description: str


class BlockItem(BlockReference):
    """A product block with its resource types and neighbours."""

    created_at: datetime
    end_date: datetime | None
    resource_types: list[TypeReference]
    depends_on: list[Named]
    in_use_by: list[Named]


class TypeItem(TypeReference):
    """A resource type with the blocks that have it."""

    product_blocks: list[Named]


class LinkedProduct(BaseModel):
    """A product, in short."""

    product_id: UUID
    name: str
    product_type: str
    tag: str
    status: str


class StepItem(BaseModel):
    """A step of a workflow, and who is to act on it."""

    name: str
    assignee: str


class WorkflowItem(WorkflowReference):
    """A workflow with its products and steps; `steps` is null when the code of this program does not have it."""

    created_at: datetime
    products: list[LinkedProduct]
    steps: list[StepItem] | None


class DescriptionChange(BaseModel):
    """A new description."""

    model_config = ConfigDict(extra="forbid")

    description: str = Field(max_length=10_000)


class ProductChange(BaseModel):
    """A new description, a new status, or both."""

    model_config = ConfigDict(extra="forbid")

    description: str | None = Field(None, max_length=10_000)
    status: Literal["active", "end_of_life"] | None = None


@router.get("/products", operation_id="list_products")
async def list_products(context: Context, caller: Reader) -> list[ProductItem]:
    """List the products by their names."""
    del caller
    return [ProductItem(**row) for row in await _list(context, metadata.PRODUCTS)]


@router.get("/products/{product}", operation_id="show_product", responses=_NOT_FOUND)
async def show_product(context: Context, caller: Reader, product: Wanted) -> ProductItem:
    """Show one product."""
    del caller
    return ProductItem(**await _read(context, metadata.PRODUCTS, product))


@router.patch("/products/{product}", operation_id="change_product", responses=_NOT_FOUND)
async def change_product(context: Context, caller: Admin, product: Wanted, change: ProductChange) -> ProductItem:
    """Change the description of a product, or take it out of use for new subscriptions and back. Migrations keep both."""
    del caller
    async with context.transaction() as session:
        if change.description is not None:
            await metadata.change_description(session, metadata.PRODUCTS, product, change.description)
        if change.status is not None:
            await metadata.change_product_status(session, product, change.status)
        return ProductItem(**await metadata.read_metadata(session, metadata.PRODUCTS, product))


@router.get("/product_blocks", operation_id="list_product_blocks")
async def list_product_blocks(context: Context, caller: Reader) -> list[BlockItem]:
    """List the product blocks by their names."""
    del caller
    return [BlockItem(**row) for row in await _list(context, metadata.BLOCKS)]


@router.get("/product_blocks/{block}", operation_id="show_product_block", responses=_NOT_FOUND)
async def show_product_block(context: Context, caller: Reader, block: Wanted) -> BlockItem:
    """Show one product block."""
    del caller
    return BlockItem(**await _read(context, metadata.BLOCKS, block))


@router.patch("/product_blocks/{block}", operation_id="change_product_block", responses=_NOT_FOUND)
async def change_product_block(context: Context, caller: Admin, block: Wanted, change: DescriptionChange) -> BlockItem:
    """Change the description of a product block."""
    del caller
    return BlockItem(**await _describe(context, metadata.BLOCKS, block, change))


@router.get("/resource_types", operation_id="list_resource_types")
async def list_resource_types(context: Context, caller: Reader) -> list[TypeItem]:
    """List the resource types by their names."""
    del caller
    return [TypeItem(**row) for row in await _list(context, metadata.TYPES)]


@router.get("/resource_types/{resource_type}", operation_id="show_resource_type", responses=_NOT_FOUND)
async def show_resource_type(context: Context, caller: Reader, resource_type: Wanted) -> TypeItem:
    """Show one resource type."""
    del caller
    return TypeItem(**await _read(context, metadata.TYPES, resource_type))


@router.patch("/resource_types/{resource_type}", operation_id="change_resource_type", responses=_NOT_FOUND)
async def change_resource_type(
    context: Context, caller: Admin, resource_type: Wanted, change: DescriptionChange
) -> TypeItem:
    """Change the description of a resource type."""
    del caller
    return TypeItem(**await _describe(context, metadata.TYPES, resource_type, change))


@router.get("/workflows", operation_id="list_workflows")
async def list_workflows(context: Context, caller: Reader) -> list[WorkflowItem]:
    """List the workflows by their names."""
    del caller
    return [_workflow(row) for row in await _list(context, metadata.WORKFLOWS)]


@router.get("/workflows/{workflow}", operation_id="show_workflow", responses=_NOT_FOUND)
async def show_workflow(context: Context, caller: Reader, workflow: Wanted) -> WorkflowItem:
    """Show one workflow."""
    del caller
    return _workflow(await _read(context, metadata.WORKFLOWS, workflow))


@router.patch("/workflows/{workflow}", operation_id="change_workflow", responses=_NOT_FOUND)
async def change_workflow(context: Context, caller: Admin, workflow: Wanted, change: DescriptionChange) -> WorkflowItem:
    """Change the description of a workflow."""
    del caller
    return _workflow(await _describe(context, metadata.WORKFLOWS, workflow, change))


async def _list(context: Context, kind: metadata.Kind) -> list[dict[str, Any]]:
    async with context.transaction() as session:
        return await metadata.list_metadata(session, kind)


async def _read(context: Context, kind: metadata.Kind, wanted: str) -> dict[str, Any]:
    async with context.transaction() as session:
        return await metadata.read_metadata(session, kind, wanted)


async def _describe(context: Context, kind: metadata.Kind, wanted: str, change: DescriptionChange) -> dict[str, Any]:
    async with context.transaction() as session:
        await metadata.change_description(session, kind, wanted, change.description)
        return await metadata.read_metadata(session, kind, wanted)


def _workflow(row: Mapping[str, Any]) -> WorkflowItem:
    try:
        steps = [
            StepItem(name=leaf.step.name, assignee=leaf.step.assignee or "SYSTEM")
            for leaf in plan_of(row["name"]).leaves
        ]
    except (NotFoundError, DefinitionError):
        return WorkflowItem(**row, steps=None)
    return WorkflowItem(**row, steps=steps)
