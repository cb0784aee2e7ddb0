"""Deleting a row must not read a whole table for each row that may belong to it."""

from __future__ import annotations

from orchestrator.db.session import Database

WITHOUT_INDEX = """
SELECT c.conrelid::regclass::text || ' (' || c.conname || ')'
  FROM pg_constraint c
 WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace
   AND NOT EXISTS (
       SELECT FROM pg_index i
        WHERE i.indrelid = c.conrelid AND i.indisvalid
          AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) LIKE '% IS NOT NULL)')
          AND (SELECT array_agg(one ORDER BY one) FROM unnest(c.conkey) one)
              = (SELECT array_agg(one ORDER BY one)
                   FROM unnest((i.indkey::int2[])[0:cardinality(c.conkey) - 1]) one))
 ORDER BY 1
"""


async def test_every_foreign_key_has_an_index_that_begins_with_its_columns(database: Database) -> None:
    found = await database.pool.fetch(WITHOUT_INDEX)
    assert [one[0] for one in found] == []
