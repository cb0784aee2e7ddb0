"""Read for one request: in batches, one statement for all rows of a page, and one batch after another.

Fields of a query are resolved side by side. Each batch has a transaction of its own, and a request has one at most, so that no
request waits for a second connection while it holds the first, and no session has two statements at once.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from strawberry.dataloader import DataLoader

from orchestrator.api.authentication import Caller
from orchestrator.api.context import ApiContext
from orchestrator.api.graphql.arguments import Asked
from orchestrator.authorization import Action, Attempted, AuthCallback, Role
from orchestrator.db import metadata
from orchestrator.db.lists.page import Page
from orchestrator.db.lists.processes import page_processes
from orchestrator.db.lists.related import Relation, count_related, read_related
from orchestrator.db.lists.request import MAX_ROWS, ListRequest
from orchestrator.db.lists.schedules import page_schedules
from orchestrator.db.lists.statement import bounded
from orchestrator.db.lists.subscriptions import page_subscriptions, read_subscriptions
from orchestrator.db.processes.logs import Place, read_entries, read_places
from orchestrator.db.subscriptions.blocks import read_users
from orchestrator.db.subscriptions.customers import list_customers
from orchestrator.db.subscriptions.queries import read_trees
from orchestrator.db.subscriptions.tree import ShownBlock
from orchestrator.errors import DefinitionError, OrchestratorError
from orchestrator.services.control import input_form
from orchestrator.services.customers import Customer
from orchestrator.services.permissions import find_authorizer, is_permitted
from orchestrator.types import JSON
from orchestrator.user_code import HOOK_TIMEOUT

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Row = Mapping[str, Any]
Parts = dict[tuple[Relation, Asked], list[UUID]]

PAGES: Final[Mapping[str, Callable[[AsyncSession, ListRequest], Awaitable[Page[Any]]]]] = {
    "processes": page_processes,
    "subscriptions": page_subscriptions,
    "scheduledTasks": page_schedules,
}


@dataclass(slots=True)
class Reader:
    """Everything that one request reads.

    Args:
        problems: texts for the errors of an answer that has data all the same.
    """

    context: ApiContext
    caller: Caller
    problems: list[str] = field(default_factory=list)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _author_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _author_seconds: float = 0
    _loaders: dict[str, DataLoader[Any, Any]] = field(default_factory=dict)

    def report(self, text: str) -> None:
        """Add a text to the errors, once."""
        if text not in self.problems:
            self.problems.append(text)

    async def list_metadata(self, kind: metadata.Kind) -> dict[UUID, Row]:
        """Return all rows of a kind by their ids, read once."""
        return await self._load("metadata", self._load_metadata, kind)

    async def list_customers(self) -> list[Customer]:
        """Return the customers that subscriptions name, read once."""
        return await self._load("known", self._load_known, None)

    async def page(self, name: str, asked: Asked) -> Page[Any]:
        """Return a page of a list of rows."""
        return await self._load("pages", self._load_pages, (name, asked))

    async def find_subscription(self, subscription_id: UUID) -> Row | None:
        """Return a subscription as it stands in a list."""
        return await self._load("subscriptions", self._load_subscriptions, subscription_id)

    async def find_customer(self, customer_id: str) -> Customer:
        """Return a customer; whoever is not known has the id for a name."""
        return await self._load("customers", self._load_customers, customer_id)

    async def related(self, relation: Relation, parent: UUID, asked: Asked) -> Sequence[Row]:
        """Return what is asked for of the rows that belong to another row."""
        if asked.is_empty or not asked.request.window.count:
            return []
        return await self._load("related", self._load_related, (relation, parent, asked))

    async def count_related(self, relation: Relation, parent: UUID, asked: Asked) -> int | None:
        """Return how many rows belong to another row; ``None`` for more than are counted."""
        return 0 if asked.is_empty else await self._load("totals", self._load_totals, (relation, parent, asked))

    async def find_place(self, process_id: UUID) -> Place | None:
        """Return where a process stands."""
        return await self._load("places", self._load_places, process_id)

    async def read_log(self, process_id: UUID) -> list[dict[str, Any]]:
        """Return the entries of a process's log."""
        return await self._load("entries", self._load_entries, process_id)

    async def read_tree(self, subscription_id: UUID) -> Sequence[ShownBlock]:
        """Return the blocks of a subscription as they stand in its fields."""
        return await self._load("trees", self._load_trees, subscription_id)

    async def list_users(self, block_id: UUID) -> list[tuple[UUID, UUID]]:
        """Return which subscriptions and blocks have a block in a field."""
        return await self._load("users", self._load_users, block_id)

    async def make_form(self, process_id: UUID, workflow: str) -> JSON:
        """Return the form that a suspended process waits for; ``None`` when this program cannot make it."""
        try:
            return await self._run_author_code(workflow, lambda session: input_form(session, process_id))
        except OrchestratorError as error:
            self.report(f"the form of the process {process_id} cannot be made: {error}")
            return None

    async def is_permitted(self, workflow: str, step: str | None, action: Action) -> bool:
        """Return whether the caller may do this, as far as roles and callbacks of authors say."""
        if Role.START not in self.caller.roles:
            return False
        attempted = Attempted(self.caller.name, workflow, step, action)
        is_known, callback = find_authorizer(attempted)
        return is_known and (callback is None or await self._ask(callback, attempted))

    async def _ask(self, callback: AuthCallback, attempted: Attempted) -> bool:
        try:
            return await self._run_author_code(
                attempted.workflow, lambda session: is_permitted(session, callback, attempted)
            )
        except OrchestratorError as error:
            self.report(f"who may {attempted.action.value} {attempted.workflow!r} could not be found out: {error}")
            return False

    async def _run_author_code(self, workflow: str, act: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Call user code, for a request one after another, and for a bounded time in all.

        Raises:
            OrchestratorError: it cannot be called, or those before it took too long.
        """
        async with self._author_turn:
            if self._author_seconds > HOOK_TIMEOUT:
                raise DefinitionError(f"the project's functions took more than {HOOK_TIMEOUT:g} s for this request")
            began = time.monotonic()
            try:
                return await self.context.run_author_code(workflow, act)
            finally:
                self._author_seconds += time.monotonic() - began

    async def _read(self, act: Callable[[AsyncSession], Awaitable[T]]) -> T:
        async with self._turn, self.context.transaction() as session, bounded(session):
            return await act(session)

    async def _load(self, name: str, load: Callable[[list[K]], Awaitable[Sequence[T]]], key: K) -> T:
        loader = self._loaders.get(name)
        if loader is None:
            loader = self._loaders[name] = DataLoader(load_fn=load, max_batch_size=MAX_ROWS)
        found: T = await loader.load(key)
        return found

    async def _load_pages(self, keys: list[tuple[str, Asked]]) -> list[Page[Any]]:
        return [await self._read_page(name, asked) for name, asked in keys]

    async def _read_page(self, name: str, asked: Asked) -> Page[Any]:
        first = asked.request.window.first
        if asked.is_empty:
            return Page([], first, 0)
        if not asked.keeps_end:
            return await self._read(lambda session: PAGES[name](session, asked.request))
        page = await self._read(lambda session: PAGES[name](session, asked.reversed()))
        count = len(page.rows) if page.total is None else min(len(page.rows), max(page.total - first, 0))
        rows = list(reversed(page.rows[:count]))
        return Page(rows, first if page.total is None else page.total - count, page.total)

    async def _load_metadata(self, kinds: list[metadata.Kind]) -> list[dict[UUID, Row]]:
        rows = [await self._read(functools.partial(_list_metadata, kind=kind)) for kind in kinds]
        return [{row[kind.key]: row for row in found} for kind, found in zip(kinds, rows, strict=True)]

    async def _load_known(self, keys: list[None]) -> list[list[Customer]]:
        named = await self.context.customers.find(await self._read(list_customers))
        return [list(named.values()) for _ in keys]

    async def _load_subscriptions(self, ids: list[UUID]) -> list[Row | None]:
        rows = await self._read(lambda session: read_subscriptions(session, ids))
        found = {row["subscription_id"]: row for row in rows}
        return [found.get(one) for one in ids]

    async def _load_customers(self, ids: list[str]) -> list[Customer]:
        found = await self.context.customers.find(ids)
        return [found[one] for one in ids]

    async def _load_related(self, keys: list[tuple[Relation, UUID, Asked]]) -> list[Sequence[Row]]:
        found: dict[tuple[Relation, UUID, Asked], Sequence[Row]] = {}
        for (relation, asked), parents in _group(keys).items():
            request = asked.reversed() if asked.keeps_end else asked.request
            rows = await self._read(lambda session: read_related(session, relation, parents, request))  # noqa: B023 - awaited
            totals: Mapping[UUID, int | None] = {}
            if asked.keeps_end and asked.request.window.first:
                totals = await self._read(lambda session: count_related(session, relation, parents, request))  # noqa: B023
            for parent in parents:
                part = rows.get(parent, [])
                if asked.keeps_end:
                    total = totals.get(parent)
                    count = len(part) if total is None else max(total - asked.request.window.first, 0)
                    part = list(reversed(part[:count]))
                found[relation, parent, asked] = part
        return [found[key] for key in keys]

    async def _load_totals(self, keys: list[tuple[Relation, UUID, Asked]]) -> list[int | None]:
        found: dict[tuple[Relation, UUID, Asked], int | None] = {}
        for (relation, asked), parents in _group(keys).items():
            totals = await self._read(lambda session: count_related(session, relation, parents, asked.request))  # noqa: B023
            found |= {(relation, parent, asked): totals.get(parent, 0) for parent in parents}
        return [found[key] for key in keys]

    async def _load_places(self, ids: list[UUID]) -> list[Place | None]:
        found = await self._read(lambda session: read_places(session, ids))
        return [found.get(one) for one in ids]

    async def _load_entries(self, ids: list[UUID]) -> list[list[dict[str, Any]]]:
        found = await self._read(lambda session: read_entries(session, ids))
        return [found[one] for one in ids]

    async def _load_trees(self, ids: list[UUID]) -> list[Sequence[ShownBlock]]:
        found = await self._read(lambda session: read_trees(session, ids))
        return [found.get(one, ()) for one in ids]

    async def _load_users(self, ids: list[UUID]) -> list[list[tuple[UUID, UUID]]]:
        found = await self._read(lambda session: read_users(session, ids))
        return [found[one] for one in ids]


async def _list_metadata(session: AsyncSession, kind: metadata.Kind) -> list[dict[str, Any]]:
    return await metadata.list_metadata(session, kind)


def _group(keys: Iterable[tuple[Relation, UUID, Asked]]) -> Parts:
    """Return the rows whose lists are asked for in the same way: one statement reads them."""
    found: Parts = {}
    for relation, parent, asked in keys:
        found.setdefault((relation, asked), []).append(parent)
    return found
