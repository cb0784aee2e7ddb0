"""Look at products, product blocks, resource types and workflows; change their descriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from orchestrator.text import NO_NULL

router = Router(tags=["metadata"])

_NOT_FOUND: Final[Responses] = {404: {"description": "There is none with this id or name."}}

Reader = Annotated[Caller, requires(Role.READ)]
Admin = Annotated[Caller, requires(Role.ADMIN)]


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


class Changeable(BaseModel):
    """Who has changed it last over HTTP; null if nobody has."""

    changed_by: str | None
    changed_at: datetime | None


class ProductItem(Changeable):
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


class BlockItem(BlockReference, Changeable):
    """A product block with its resource types and neighbours."""

    created_at: datetime
    end_date: datetime | None
    resource_types: list[TypeReference]
    depends_on: list[Named]
    in_use_by: list[Named]


class TypeItem(TypeReference, Changeable):
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


class WorkflowItem(WorkflowReference, Changeable):
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


def _wanted(parameter: str) -> Any:
    """Return the parameter of a path that names one row."""
    return Path(alias=parameter, description="Its id, or its name.", max_length=300, pattern=NO_NULL)


Make = Callable[[Mapping[str, Any]], BaseModel]


def add_paths(kind: metadata.Kind, path: str, parameter: str, item: type[BaseModel], make: Make) -> None:
    """Add the three paths of a kind: list, show, and change the description.

    Args:
        path: without the slash.
        parameter: of the path of one row.
        make: makes the answer of a row.
    """
    one, words = f"/{path}/{{{parameter}}}", kind.words
    single, several = words.title(), f"{words}s".title()
    name, wanted_row = words.replace(" ", "_"), _wanted(parameter)

    @router.get(
        f"/{path}",
        operation_id=f"list_{path}",
        summary=f"List {several}",
        response_model=list[item],  # type: ignore[valid-type]
        description=f"List the {words}s by their names.",
    )
    async def list_rows(context: Context, caller: Reader) -> list[BaseModel]:
        del caller
        async with context.transaction() as session:
            return [make(row) for row in await metadata.list_metadata(session, kind)]

    @router.get(
        one,
        operation_id=f"show_{name}",
        summary=f"Show {single}",
        response_model=item,
        responses=_NOT_FOUND,
        description=f"Show one {words}.",
    )
    async def show_row(context: Context, caller: Reader, wanted: str = wanted_row) -> BaseModel:
        del caller
        async with context.transaction() as session:
            return make(await metadata.read_metadata(session, kind, wanted))

    if kind is not metadata.PRODUCTS:

        @router.patch(
            one,
            operation_id=f"change_{name}",
            summary=f"Change {single}",
            response_model=item,
            responses=_NOT_FOUND,
            description=f"Change the description of a {words}.",
        )
        async def change_row(
            context: Context, caller: Admin, change: DescriptionChange, wanted: str = wanted_row
        ) -> BaseModel:
            async with context.transaction() as session:
                await metadata.change_metadata(session, kind, wanted, caller.name, description=change.description)
                return make(await metadata.read_metadata(session, kind, wanted))


_PRODUCT: Final = _wanted("product")


@router.patch("/products/{product}", operation_id="change_product", responses=_NOT_FOUND)
async def change_product(
    context: Context, caller: Admin, change: ProductChange, product: str = _PRODUCT
) -> ProductItem:
    """Change the description of a product, or take it out of use for new subscriptions and back. Migrations keep both."""
    async with context.transaction() as session:
        await metadata.change_metadata(
            session, metadata.PRODUCTS, product, caller.name, description=change.description, status=change.status
        )
        return ProductItem(**await metadata.read_metadata(session, metadata.PRODUCTS, product))


def _workflow(row: Mapping[str, Any]) -> WorkflowItem:
    try:
        steps = [
            StepItem(name=leaf.step.name, assignee=leaf.step.assignee or "SYSTEM")
            for leaf in plan_of(row["name"]).leaves
        ]
    except (NotFoundError, DefinitionError):
        return WorkflowItem(**row, steps=None)
    return WorkflowItem(**row, steps=steps)


add_paths(metadata.PRODUCTS, "products", "product", ProductItem, lambda row: ProductItem(**row))
add_paths(metadata.BLOCKS, "product_blocks", "block", BlockItem, lambda row: BlockItem(**row))
add_paths(metadata.TYPES, "resource_types", "resource_type", TypeItem, lambda row: TypeItem(**row))
add_paths(metadata.WORKFLOWS, "workflows", "workflow", WorkflowItem, _workflow)
