"""The schema with its root fields."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Final, TypeVar

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

    @strawberry.field(description="Products, by their names.")
    def products(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[ProductType]:
        """Return products."""
        asked = read_arguments(tables.PRODUCTS, first, after, sort_by, filter_by, query, info.context.report)
        return _connect_table(tables.PRODUCTS, functools.partial(_list, info, metadata.PRODUCTS), asked, ProductType.of)

    @strawberry.field(description="Blocks that products are made of, by their names.")
    def product_blocks(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[ProductBlock]:
        """Return blocks."""
        asked = read_arguments(tables.BLOCKS, first, after, sort_by, filter_by, query, info.context.report)
        return _connect_table(tables.BLOCKS, functools.partial(_list, info, metadata.BLOCKS), asked, ProductBlock.of)

    @strawberry.field(description="Values that blocks have, by their names.")
    def resource_types(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[ResourceType]:
        """Return resource types."""
        asked = read_arguments(tables.TYPES, first, after, sort_by, filter_by, query, info.context.report)
        return _connect_table(tables.TYPES, functools.partial(_list, info, metadata.TYPES), asked, ResourceType.of)

    @strawberry.field(description="Workflows and tasks, by their names.")
    def workflows(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        sort_by: SortBy = None,
        filter_by: FilterBy = None,
        query: Query = None,
    ) -> Connection[Workflow]:
        """Return workflows and tasks."""
        asked = read_arguments(tables.WORKFLOWS, first, after, sort_by, filter_by, query, info.context.report)
        return _connect_table(tables.WORKFLOWS, functools.partial(_list, info, metadata.WORKFLOWS), asked, Workflow.of)

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


async def _list(info: Info, kind: metadata.Kind) -> list[Row]:
    return list((await info.context.list_metadata(kind)).values())


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
