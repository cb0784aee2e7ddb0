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
    assert revisions.read_known(project).covers(applied) is expected


@pytest.mark.parametrize("code", ["revision = (", "revision = make()\n", "", "revision = 'third'\ndown_revision = 7\n"])
def test_a_file_that_does_not_say_it_plainly_leaves_the_question_to_alembic(project: Path, code: str) -> None:
    (project / "third.py").write_text(code)

    known = revisions.read_known(project)
    assert not known.covers(["0002", "second"])
    assert known.find_unknown(["0002", "third", "0003"]) == ["0003"], "only the engine's are known to be plain"


@pytest.mark.parametrize(
    "code",
    [
        '"""A text with\ndef upgrade\nin it."""\n\nREVISIONS\n\ndef upgrade() -> None: ...\n',
        "def upgrade() -> None: ...\n\nREVISIONS\n",
        "@decorated\ndef upgrade() -> None: ...\n\nREVISIONS\n\nclass Later: ...\n",
        "# coding: latin-1\nREVISIONS\n\nasync def upgrade() -> None:\n    '\xe9'\n",
    ],
)
def test_a_file_says_it_plainly_wherever_its_first_function_stands(project: Path, code: str) -> None:
    said = "revision: str = 'third'\ndown_revision = 'second'\ndepends_on = ['0002']\n"
    (project / "third.py").write_bytes(code.replace("REVISIONS\n", said).encode("latin-1"))

    known = revisions.read_known(project)
    assert known.heads == ("0002", "third")
    assert known.edges["third"] == ("second", "0002")
    assert known.covers(["0002", "third"])


def test_what_follows_the_first_function_is_not_parsed(project: Path) -> None:
    """Each program reads all migrations at its start; only who upgrades needs their statements."""
    (project / "third.py").write_text("revision = 'third'\ndown_revision = 'second'\n\n\ndef upgrade(:\n")

    assert revisions.read_known(project).covers(["0002", "third"])


@pytest.mark.parametrize(
    ("applied", "unknown", "pending"),
    [
        (["0002", "second"], [], []),
        (["0003", "second"], ["0003"], []),
        (["0002", "later"], ["later"], []),
        (["0002", "first"], [], ["second"]),
        (["second"], [], ["0002"]),
        ([], [], ["0002", "second"]),
    ],
)
def test_who_is_older_the_program_or_the_database(
    project: Path, applied: list[str], unknown: list[str], pending: list[str]
) -> None:
    known = revisions.read_known(project)
    assert known.heads == ("0002", "second")
    assert (known.find_unknown(applied), known.find_pending(applied)) == (unknown, pending)


@pytest.mark.parametrize(
    ("applied", "unknown", "pending"),
    [
        (["0002"], [], []),
        (["0001"], [], ["0002"]),
        (["0003"], ["0003"], []),
        (["later"], [], []),  # the engine's revisions may be below it
        (["0001", "later"], [], []),
    ],
)
def test_a_program_without_the_projects_migrations_compares_the_engines_only(
    project: Path, applied: list[str], unknown: list[str], pending: list[str]
) -> None:
    known = revisions.read_known(project / "missing")
    assert (known.find_unknown(applied), known.find_pending(applied)) == (unknown, pending)


def test_a_revision_that_names_another_by_its_branch_leaves_it_open_what_is_pending(project: Path) -> None:
    (project / "third.py").write_text("revision = 'third'\ndown_revision = 'second'\ndepends_on = 'engine@head'\n")
    known = revisions.read_known(project)
    assert known.find_pending(["third"]) == []


def test_a_program_knows_what_its_files_said_at_its_start(project: Path) -> None:
    """They may be replaced while it runs; its code is not."""
    assert revisions.known_at_start(project).heads == ("0002", "second")
    (project / "third.py").write_text("revision = 'third'\ndown_revision = 'second'\n")
    assert revisions.known_at_start(project).find_unknown(["third"]) == ["third"]
    assert revisions.read_known(project).find_unknown(["third"]) == []


@pytest.mark.parametrize(
    ("heads", "applied", "lacking"),
    [
        (["0002", "second"], ["0002", "second"], []),
        (["0002", "first"], ["0002", "second"], ["second"]),
        (["0001", "first"], ["second", "0002"], ["0002", "second"]),
        (["0001"], ["second", "0002"], ["0002"]),  # without the project's migrations
        (["0002"], ["second"], []),
        (["0002", "newer"], ["0002", "second"], []),
        ([], ["0002", "second"], []),
    ],
)
def test_what_another_program_lacks(project: Path, heads: list[str], applied: list[str], lacking: list[str]) -> None:
    assert revisions.read_known(project).find_lacking(heads, applied) == lacking


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (["0002", "second"], []),
        (["0002", "unknown"], []),  # the project's own revisions play no part
        (["0001", "second"], ["0002"]),
        (["0003"], []),  # it is newer than this program
        ([], ["0002"]),  # it is too old to report any
    ],
)
def test_which_programs_must_not_run_beside_this_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, heads: list[str], expected: list[str]
) -> None:
    monkeypatch.setattr(revisions, "STOP_FIRST", {"0002", "9999"})
    assert revisions.read_known(project).must_stop(heads) == expected
