"""A step cannot end the transaction that holds its writes and its log row."""

from __future__ import annotations

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.workflows.commits import ATTEMPTS, SQL


@pytest.mark.parametrize("how", [*ATTEMPTS, *SQL])
def test_a_step_that_tries_to_end_the_transaction_fails_and_stores_nothing(engine: Installation, how: str) -> None:
    """B6: every method and every SQL text, whatever its case and comments, even when the step swallows the error."""
    process_id = engine.finish("tries_to_commit", {"how": how}, status="failed")
    (entry,) = engine.log(process_id, "Try to commit")
    assert entry.failure is not None
    assert entry.failure["type"] == "CommitNotAllowedError", entry.failure
    assert entry.failure["message"].startswith(("a step may not", "the step has ended its transaction"))
    assert engine.effects(process_id) == []
    assert "went on" not in engine.state(process_id)


def test_savepoints_are_allowed(engine: Installation) -> None:
    """B6: what a savepoint rolls back is gone, the rest is stored."""
    process_id = engine.finish("uses_savepoints")
    assert engine.effects(process_id) == ["in a savepoint", "at the end"]


def test_a_commit_behind_another_statement_fails_and_stores_nothing(engine: Installation) -> None:
    """B6: the driver takes one statement at a time, and says so."""
    for how in ("SELECT 1; COMMIT", "DO $$ BEGIN COMMIT; END $$"):
        process_id = engine.finish("tries_to_commit", {"how": how}, status="failed")
        assert engine.effects(process_id) == []
        assert "went on" not in engine.state(process_id)
