"""Numbers come back in the type in which they were stored, and a change of the type is a change; on a real database."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.db.session import Database
from orchestrator.types import JSON
from tests.integration.model_bench import Bench, make_bench


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, 1.0), (1.0, 1), ({"a": [1]}, {"a": [1.0]}), (2**60, 2.5), (True, 1), (0, False), (-1, -1.0)],
)
async def test_a_number_of_another_type_is_another_value_where_the_annotation_leaves_it_open(
    bench: Bench, before: JSON, after: JSON
) -> None:
    """B18: 1 to 1.0 was neither saved nor refused."""
    folders = await bench.folders()
    folders.top.anything = before
    await bench.save(folders)
    again: Any = await bench.load(folders.subscription_id)
    assert repr(again.top.anything) == repr(before)
    again.top.anything = after
    await bench.save(again)
    last: Any = await bench.load(folders.subscription_id)
    assert repr(last.top.anything) == repr(after)
    assert last.version == folders.version + 1
    (change,) = (await bench.changes(folders.subscription_id))[-1].values()
    assert repr(change) == repr([before, after])
    with bench.statements() as sent:
        await bench.save(last)
    assert sent == []


async def test_a_number_that_a_migration_has_written_in_another_type_is_no_change(bench: Bench) -> None:
    folders = await bench.folders()
    await bench.database.pool.execute("""UPDATE subscription_instances SET resources = resources || '{"ratio": 1}'""")
    again: Any = await bench.load(folders.subscription_id)
    assert repr(again.top.ratio) == "1.0"
    again.note = "only this"
    await bench.save(again)
    assert list((await bench.changes(folders.subscription_id))[-1]) == ["note"]


@pytest.mark.parametrize("number", [1e16, 1e22, 1e300, [1e22], {"a": 1e22}])
async def test_a_large_float_stays_a_float_where_the_annotation_leaves_it_open(bench: Bench, number: JSON) -> None:
    folders = await bench.folders()
    folders.top.anything, folders.top.ratio = number, 1e300
    await bench.save(folders)
    again: Any = await bench.load(folders.subscription_id)
    assert repr((again.top.anything, again.top.ratio)) == repr((number, 1e300))
