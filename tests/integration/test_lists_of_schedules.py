"""Pages of schedules on a real database, asked for by whoever writes anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.db.lists.request import read_request
from orchestrator.db.lists.schedules import COLUMNS, page_schedules
from orchestrator.db.session import Database
from orchestrator.errors import InvalidQueryError
from tests.integration import api_flows
from tests.integration.schedule_bench import GREET, add
from tests.integration.test_lists import BAD_TEXTS


@pytest.fixture
async def database_with_schedules(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    await api_flows.register(database, monkeypatch)
    for number in range(6):
        note = f"for the site {number % 3}" if number else None
        await add(database, replace(GREET, name=f"s{number}", note=note, enabled=number % 2 == 0))
    return database


async def names(database: Database, **asked: object) -> list[str]:
    async with database.transaction() as session:
        return [one.name for one in (await page_schedules(session, read_request(**asked))).rows]  # type: ignore[arg-type]


async def test_each_column_sorts_without_losing_a_row_between_pages(database_with_schedules: Database) -> None:
    for name in COLUMNS.sorts:
        for direction in ("asc", "desc"):
            sort = [f"{name},{direction}"]
            found = await names(database_with_schedules, sort=sort)
            assert sorted(found) == [f"s{number}" for number in range(6)]
            for first in (0, 2, 4):
                page = await names(database_with_schedules, sort=sort, rows=f"{first},{first + 1}")
                assert page == found[first : first + 2], sort


async def test_no_text_is_a_syntax_error(database_with_schedules: Database) -> None:
    for written in BAD_TEXTS:
        for query in (written, f"-{written}", f"note:{written}", f"created_by:{written}"):
            assert await names(database_with_schedules, query=query) is not None
        for name in ("created_by", "workflow_name", "name", "note") if written != "!" else ():
            assert await names(database_with_schedules, filters=[f"{name},{written}"]) == []


@pytest.mark.parametrize("name", ["inputs", "trigger", "declared", "words", "zone_rules", "id;pid", "1", ""])
async def test_a_name_that_the_list_does_not_have_is_refused_with_those_that_it_has(
    database: Database, name: str
) -> None:
    async with database.transaction() as session:
        with pytest.raises(InvalidQueryError) as refused:
            await page_schedules(session, read_request(filters=[f"{name},a"]))
        assert refused.value.allowed == sorted(COLUMNS.filters)
        with pytest.raises(InvalidQueryError) as refused:
            await page_schedules(session, read_request(sort=[f"{name},asc"]))
        assert refused.value.allowed == sorted(COLUMNS.sorts)
