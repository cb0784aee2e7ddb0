"""The schema with its root fields."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeVar

import strawberry
from graphql import GraphQLError
from strawberry.extensions import DisableIntrospection, SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from orchestrator import __version__
from orchestrator.api.graphql import tables
from orchestrator.api.graphql.arguments import Asked, read_arguments
from orchestrator.api.graphql.catalogue import ProductBlock, ResourceType
from orchestrator.api.graphql.limits import Limiter
from orchestrator.api.graphql.pages import Connection, PageInfo, connect_page
from orchestrator.api.graphql.reader import Row
from orchestrator.api.graphql.tables import Table
from orchestrator.api.graphql.types import (
    After,
    FilterBy,
    First,
    Info,
    ProcessType,
    ProductType,
    Query,
    SortBy,
    SubscriptionInterface,
    Workflow,
)
from orchestrator.api.graphql.values import CustomerType, ScheduledTask, VersionType
from orchestrator.db import metadata
from orchestrator.db.lists import processes, schedules, subscriptions
from orchestrator.db.lists.page import Page

COMPATIBLE: Final = "5.4.0"
"""The version of the API that the field's user interface looks for: it compares the second word of the first text."""

T = TypeVar("T")


def _connect_table(
    table: Table, read: Callable[[], Awaitable[Sequence[Row]]], asked: Asked, make: Callable[[Row], T]
) -> Connection[T]:
    async def select() -> Page[Row]:
        if asked.is_empty:
            return Page([], asked.request.window.first, 0)
        return table.select(await read(), asked.request)

    async def rows() -> list[T]:
        return [make(row) for row in (await select()).rows]

    async def info() -> PageInfo:
        page = await select()
        return PageInfo.of(table, page.first, len(page.rows), page.total)

    return Connection(_rows=rows, _info=info)


def _list_of(description: str, table: Table, kind: metadata.Kind, make: Callable[[Row], object]) -> Any:
    """Return the field that lists one kind of what code has registered: all such fields have the same arguments."""

    def resolve(
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[Any]:
        async def rows() -> list[Row]:
            return list((await info.context.list_metadata(kind)).values())

        asked = read_arguments(table, first, after, sort_by, filter_by, query, info.context.report)
        return _connect_table(table, rows, asked, make)

    del resolve.__annotations__["return"]  # else it would count instead of the attribute's
    return strawberry.field(resolve, description=description)


@strawberry.type(name="Query", description="What can be read.")
class Root:
    """What can be read."""

    @strawberry.field(description="Processes, the newest first unless sortBy says otherwise.")
    def processes(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[ProcessType]:
        """Return processes."""
        asked = read_arguments(processes.COLUMNS, first, after, sort_by, filter_by, query, info.context.report)
        return connect_page(info.context, "processes", processes.COLUMNS, asked, ProcessType.of)

    @strawberry.field(description="Subscriptions, the newest first unless sortBy says otherwise.")
    def subscriptions(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[SubscriptionInterface]:
        """Return subscriptions."""
        asked = read_arguments(subscriptions.COLUMNS, first, after, sort_by, filter_by, query, info.context.report)
        return connect_page(info.context, "subscriptions", subscriptions.COLUMNS, asked, SubscriptionInterface.of)

    @strawberry.field(description="Schedules, by their names.")
    def scheduled_tasks(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
    ) -> Connection[ScheduledTask]:
        """Return schedules."""
        asked = read_arguments(schedules.COLUMNS, first, after, sort_by, filter_by, None, info.context.report)
        return connect_page(info.context, "scheduledTasks", schedules.COLUMNS, asked, ScheduledTask.of)

    products: Connection[ProductType] = _list_of(
        "Products, by their names.", tables.PRODUCTS, metadata.PRODUCTS, ProductType.of
    )
    product_blocks: Connection[ProductBlock] = _list_of(
        "Blocks that products are made of, by their names.", tables.BLOCKS, metadata.BLOCKS, ProductBlock.of
    )
    resource_types: Connection[ResourceType] = _list_of(
        "Values that blocks have, by their names.", tables.TYPES, metadata.TYPES, ResourceType.of
    )
    workflows: Connection[Workflow] = _list_of(
        "Workflows and tasks, by their names.", tables.WORKFLOWS, metadata.WORKFLOWS, Workflow.of
    )

    @strawberry.field(description="Customers that have subscriptions, by their names.")
    def customers(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[CustomerType]:
        """Return customers."""
        asked = read_arguments(tables.CUSTOMERS, first, after, sort_by, filter_by, query, info.context.report)

        async def rows() -> list[Row]:
            return [asdict(one) for one in await info.context.list_customers()]

        return _connect_table(tables.CUSTOMERS, rows, asked, lambda row: CustomerType(**row))

    @strawberry.field(description="What answers.")
    def version(self) -> VersionType:
        """Return what answers."""
        return VersionType(application_versions=[f"api {COMPATIBLE}", f"orchestrator {__version__}"])


class Schema(strawberry.Schema):
    """A schema whose errors are logged by the one who answers the request."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log nothing: see :mod:`orchestrator.api.routes.graphql`."""


@functools.cache
def find_schema(*, introspection: bool) -> Schema:
    """Return the schema, made once and at first use: the other paths need not wait for it.

    Args:
        introspection: whether it answers what it is.
    """
    extensions: list[type[SchemaExtension]] = [Limiter]
    if not introspection:
        extensions.append(DisableIntrospection)
    return Schema(Root, extensions=extensions, config=StrawberryConfig(disable_field_suggestions=not introspection))
