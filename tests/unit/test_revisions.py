"""Whether migrations are missing, read from their files without Alembic."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.db import revisions

ENGINE = {"0001": None, "0002": "0001"}
PROJECT = {"first": (None, "0001"), "second": ("first", None)}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project's two migrations, beside an engine's two."""
    engine, folder = tmp_path / "engine", tmp_path / "project"
    (engine / "versions").mkdir(parents=True)
    folder.mkdir()
    monkeypatch.setattr(revisions, "engine_migrations", lambda: engine)
    for name, below in ENGINE.items():
        (engine / "versions" / f"{name}.py").write_text(f"revision: str = {name!r}\ndown_revision = {below!r}\n")
    for name, (below, needs) in PROJECT.items():
        code = f"revision = {name!r}\ndown_revision = {below!r}\ndepends_on = {needs!r}\n"
        (folder / f"{name}.py").write_text(code)
    return folder


@pytest.mark.parametrize(
    ("applied", "expected"),
    [
        (["0002", "second"], True),
        (["second"], False),  # the engine has gained a revision since
        (["0002", "first"], False),
        (["0002", "second", "unknown"], False),
        ([], False),
    ],
)
def test_a_database_is_up_to_date_with_all_revisions_and_no_unknown_one(
    project: Path, applied: list[str], expected: bool
) -> None:
    assert revisions.is_up_to_date(project, applied) is expected


@pytest.mark.parametrize("code", ["revision = (", "revision = make()\n", "", "revision = 'third'\ndown_revision = 7\n"])
def test_a_file_that_does_not_say_it_plainly_leaves_the_question_to_alembic(project: Path, code: str) -> None:
    (project / "third.py").write_text(code)

    assert not revisions.is_up_to_date(project, ["0002", "second"])
