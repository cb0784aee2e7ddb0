"""The types of the schema. Their names, and which fields are never null, are those that the field's user interface asks for."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from orchestrator.api.graphql.arguments import GraphqlFilter, GraphqlSort, read_arguments
from orchestrator.api.graphql.catalogue import ProductBlock, list_blocks
from orchestrator.api.graphql.instances import describe_users, list_values, number_blocks
from orchestrator.api.graphql.pages import Connection, connect_related
from orchestrator.api.graphql.reader import Reader, Row
from orchestrator.api.graphql.steps import ProcessStep, list_steps
from orchestrator.api.graphql.values import (
    CustomerDescription,
    CustomerType,
    FixedInput,
    UserPermissions,
    WorkflowStep,
)
from orchestrator.authorization import Action
from orchestrator.db import metadata
from orchestrator.db.lists import related
from orchestrator.db.lists.related import Relation
from orchestrator.db.subscriptions.tree import ShownBlock
from orchestrator.errors import DefinitionError, NotFoundError
from orchestrator.registry import plan_of
from orchestrator.types import ProcessStatus

Info = strawberry.Info[Reader, None]
"""What a field knows of its request."""

First = Annotated[int | None, strawberry.argument(description="How many rows; 10 without it, 1,000 at most.")]
After = Annotated[int | None, strawberry.argument(description="How many rows are left out at the beginning.")]
SortBy = list[GraphqlSort] | None
FilterBy = list[GraphqlFilter] | None
Query = Annotated[str | None, strawberry.argument(description="Words that the rows have.")]


@strawberry.type(description="What customers have subscriptions of.")
class ProductType:
    """What customers have subscriptions of."""

    _row: strawberry.Private[Row]
    product_id: str
    name: str
    description: str
    product_type: str
    status: str
    tag: str
    created_at: datetime | None
    end_date: datetime | None

    @classmethod
    def of(cls, row: Row) -> ProductType:
        """Return a product."""
        names = ("name", "description", "product_type", "status", "tag", "created_at", "end_date")
        return cls(_row=row, product_id=str(row["product_id"]), **{name: row[name] for name in names})

    @strawberry.field(description="The blocks that it is made of.")
    async def product_blocks(self, info: Info) -> list[ProductBlock]:
        """Return the blocks that it is made of."""
        return await list_blocks(info, self._row["product_blocks"])

    @strawberry.field(description="What no subscription changes.")
    def fixed_inputs(self) -> list[FixedInput]:
        """Return what no subscription changes."""
        return [FixedInput(name=one["name"], value=one["value"]) for one in self._row["fixed_inputs"]]

    @strawberry.field(description="Its subscriptions.")
    def subscriptions(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[SubscriptionInterface]:
        """Return its subscriptions."""
        arguments = (first, after, sort_by, filter_by, query)
        return _connect_subscriptions(info, related.OF_PRODUCTS, UUID(self.product_id), arguments)


@strawberry.type(description="One run of a workflow.")
class ProcessType:
    """One run of a workflow."""

    _row: strawberry.Private[Row]
    process_id: str
    workflow_name: str
    workflow_target: str
    is_task: bool
    created_by: str | None
    assignee: str | None
    last_status: str
    last_step: str | None
    started_at: datetime
    last_modified_at: datetime | None
    note: str | None

    @classmethod
    def of(cls, row: Row) -> ProcessType:
        """Return a process. The field's user interface compares its status in capitals."""
        names = ("workflow_name", "workflow_target", "is_task", "created_by", "assignee", "last_step", "note")
        return cls(
            _row=row,
            process_id=str(row["process_id"]),
            last_status=row["last_status"].upper(),
            started_at=row["started_at"],
            last_modified_at=row["last_modified_at"],
            **{name: row[name] for name in names},
        )

    @strawberry.field(description="Of its newest failure, while that has not been retried.")
    async def traceback(self, info: Info) -> str | None:
        """Return the traceback of its newest failure."""
        place = await info.context.find_place(self._row["process_id"])
        return None if place is None else place.traceback

    @strawberry.field(description="All attempts of its steps in their order, then the steps to come.")
    async def steps(self, info: Info) -> list[ProcessStep] | None:
        """Return all attempts of its steps, then the steps to come."""
        place = await info.context.find_place(self._row["process_id"])
        entries = await info.context.read_log(self._row["process_id"])
        return await asyncio.to_thread(list_steps, place, entries)

    @strawberry.field(description="The JSON schema of the first page that it waits for.")
    async def form(self, info: Info) -> JSON | None:
        """Return the form that it waits for."""
        if self._row["last_status"] != ProcessStatus.SUSPENDED:
            return None
        form = await info.context.make_form(self._row["process_id"], self.workflow_name)
        return None if form is None else JSON(form)

    @strawberry.field(description="What the caller may do with it.")
    async def user_permissions(self, info: Info) -> UserPermissions:
        """Return what the caller may do with it."""
        reader = info.context
        return UserPermissions(
            retry_allowed=await reader.is_permitted(self.workflow_name, self.last_step, Action.RETRY),
            resume_allowed=await reader.is_permitted(self.workflow_name, self.last_step, Action.RESUME),
        )

    @strawberry.field(description="Of the first subscription that it has touched.")
    async def product(self, info: Info) -> ProductType | None:
        """Return the product of the first subscription that it has touched."""
        touched = self._row["subscriptions"]
        return await _find_product(info, touched[0]["product"]["product_id"]) if touched else None

    @strawberry.field(
        description="Of the first subscription that it has touched; its names are empty if there is none."
    )
    async def customer(self, info: Info) -> CustomerType:
        """Return the customer of the first subscription that it has touched."""
        touched = self._row["subscriptions"]
        if not touched:
            return CustomerType(customer_id="", fullname="", shortcode="")
        return CustomerType.of(await info.context.find_customer(touched[0]["customer_id"]))

    @strawberry.field(description="The subscriptions that it has touched.")
    def subscriptions(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[SubscriptionInterface]:
        """Return the subscriptions that it has touched."""
        arguments = (first, after, sort_by, filter_by, query)
        return _connect_subscriptions(info, related.OF_PROCESSES, self._row["process_id"], arguments)


@strawberry.type(description="A block in a subscription's fields.")
class ProductBlockInstance:
    """A block in a subscription's fields."""

    _block: strawberry.Private[ShownBlock]
    id: int
    parent: int | None
    subscription_instance_id: str
    product_block_instance_values: JSON

    @strawberry.field(description="The subscriptions and blocks that have it in a field.")
    async def in_use_by_relations(self, info: Info) -> JSON:
        """Return who has it in a field."""
        users = await info.context.list_users(self._block.subscription_instance_id)
        return JSON(describe_users(users))

    @strawberry.field(description="The subscription that it belongs to.")
    async def subscription(self, info: Info) -> SubscriptionInterface:
        """Return the subscription that it belongs to."""
        row = await info.context.find_subscription(self._block.owner_subscription_id)
        if row is None:
            raise NotFoundError(f"there is no subscription {self._block.owner_subscription_id} any more")
        return SubscriptionInterface.of(row)


@strawberry.type(description="What a customer has of a product.")
class SubscriptionInterface:
    """What a customer has of a product."""

    _row: strawberry.Private[Row]
    subscription_id: str
    description: str
    status: str
    insync: bool
    note: str | None
    start_date: datetime | None
    end_date: datetime | None
    customer_id: str | None

    @classmethod
    def of(cls, row: Row) -> SubscriptionInterface:
        """Return a subscription."""
        names = ("description", "status", "insync", "note", "start_date", "end_date", "customer_id")
        return cls(_row=row, subscription_id=str(row["subscription_id"]), **{name: row[name] for name in names})

    @strawberry.field(description="Its customer.")
    async def customer(self, info: Info) -> CustomerType | None:
        """Return its customer."""
        return CustomerType.of(await info.context.find_customer(self._row["customer_id"]))

    @strawberry.field(description="The engine stores none.")
    def metadata(self) -> JSON | None:
        """Return nothing: the engine stores no metadata."""
        return None

    @strawberry.field(description="Its product.")
    async def product(self, info: Info) -> ProductType:
        """Return its product."""
        return await _find_product(info, self._row["product_id"])

    @strawberry.field(description="Those of its product.")
    async def fixed_inputs(self, info: Info) -> JSON | None:
        """Return the fixed inputs of its product."""
        product = await _read_product(info, self._row["product_id"])
        return JSON([{"field": one["name"], "value": one["value"]} for one in product["fixed_inputs"]])

    @strawberry.field(description="The engine stores none.")
    def customer_descriptions(self) -> list[CustomerDescription] | None:
        """Return nothing: the engine stores no descriptions by customers."""
        return []

    @strawberry.field(description="The blocks in its fields, the outer ones first.")
    async def product_block_instances(self, info: Info) -> list[ProductBlockInstance]:
        """Return the blocks in its fields."""
        return [
            ProductBlockInstance(
                _block=block,
                id=number,
                parent=parent,
                subscription_instance_id=str(block.subscription_instance_id),
                product_block_instance_values=JSON(list_values(block)),
            )
            for number, parent, block in number_blocks(await info.context.read_tree(self._row["subscription_id"]))
        ]

    @strawberry.field(description="The processes that have touched it.")
    def processes(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[ProcessType]:
        """Return the processes that have touched it."""
        reader = info.context
        asked = read_arguments(related.PROCESSES.columns, first, after, sort_by, filter_by, query, reader.report)
        return connect_related(reader, related.PROCESSES, self._row["subscription_id"], asked, ProcessType.of)

    @strawberry.field(description="The subscriptions that have blocks of it in their fields.")
    def in_use_by_subscriptions(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[SubscriptionInterface]:
        """Return the subscriptions that have blocks of it in their fields."""
        arguments = (first, after, sort_by, filter_by, query)
        return _connect_subscriptions(info, related.USING, self._row["subscription_id"], arguments)


@strawberry.type(description="What can be run.")
class Workflow:
    """What can be run."""

    _row: strawberry.Private[Row]
    workflow_id: str
    name: str
    description: str | None
    target: str
    is_task: bool
    created_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> Workflow:
        """Return a workflow."""
        names = ("name", "description", "target", "is_task", "created_at")
        return cls(_row=row, workflow_id=str(row["workflow_id"]), **{name: row[name] for name in names})

    @strawberry.field(description="Whether the caller may start it.")
    async def is_allowed(self, info: Info) -> bool:
        """Return whether the caller may start it."""
        return await info.context.is_permitted(self.name, None, Action.START)

    @strawberry.field(description="The products that have it.")
    async def products(self, info: Info) -> list[ProductType]:
        """Return the products that have it."""
        known = await info.context.list_metadata(metadata.PRODUCTS)
        ids = [UUID(one["product_id"]) for one in self._row["products"]]
        return [ProductType.of(known[one]) for one in ids if one in known]

    @strawberry.field(description="Its steps; none when this program does not have its code.")
    def steps(self) -> list[WorkflowStep]:
        """Return its steps."""
        try:
            leaves = plan_of(self.name).leaves
        except (NotFoundError, DefinitionError):
            return []
        return [WorkflowStep(name=leaf.step.name, assignee=leaf.step.assignee or "SYSTEM") for leaf in leaves]


async def _find_product(info: Info, product_id: Any) -> ProductType:
    return ProductType.of(await _read_product(info, product_id))


async def _read_product(info: Info, product_id: Any) -> Row:
    known = await info.context.list_metadata(metadata.PRODUCTS)
    row = known.get(UUID(str(product_id)))
    if row is None:
        raise NotFoundError(f"there is no product {product_id} any more")
    return row


def _connect_subscriptions(
    info: Info,
    relation: Relation,
    parent: UUID,
    arguments: tuple[int | None, int | None, SortBy, FilterBy, str | None],
) -> Connection[SubscriptionInterface]:
    asked = read_arguments(relation.columns, *arguments, info.context.report)
    return connect_related(info.context, relation, parent, asked, SubscriptionInterface.of)
