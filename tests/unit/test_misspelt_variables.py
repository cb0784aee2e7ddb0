"""A variable that looks like a setting and is none is named at the start of a program."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from orchestrator.cli.startup_checks import warn_about_environment
from orchestrator.errors import ConfigurationError
from orchestrator.settings import list_misspelt, load_settings


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list_misspelt():
        monkeypatch.delenv(name.split()[0])


def test_a_misspelt_variable_is_named_with_what_may_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_STEP_TIMOUT", "5")
    monkeypatch.setenv("orchestrator_nonsense_of_mine", "x")
    assert list_misspelt() == [
        "ORCHESTRATOR_NONSENSE_OF_MINE",
        "ORCHESTRATOR_STEP_TIMOUT (is ORCHESTRATOR_STEP_TIMEOUT meant?)",
    ]


def test_the_file_with_settings_is_read_as_well(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# ORCHESTRATOR_IN_A_COMMENT=1\nORCHESTRATOR_AMQP_URL=x\nexport ORCHESTRATOR_AMPQ_URL = 'y=ORCHESTRATOR_Z'\n"
    )
    assert list_misspelt() == ["ORCHESTRATOR_AMPQ_URL (is ORCHESTRATOR_AMQP_URL meant?)"]


def test_other_names_are_none_of_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ORCHESTRATOR_API_KEY",
        "ORCHESTRATOR_SERVICES_BINARIES",
        "MY_ORCHESTRATOR_X",
        "ORCHESTRATOR_QUEUE_TYPE",
    ):
        monkeypatch.setenv(name, "quorum")
    assert list_misspelt() == []


def test_a_program_names_each_of_them_once_whatever_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """'orchestrator dev' runs three programs in one process."""
    monkeypatch.setenv("ORCHESTRATOR_LOGLEVEL", "debug")
    with capture_logs() as logs:
        warn_about_environment()
    assert [entry["variable"] for entry in logs] == ["ORCHESTRATOR_LOGLEVEL (is ORCHESTRATOR_LOG_LEVEL meant?)"]


def test_who_misspells_a_variable_that_must_be_set_gets_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHESTRATOR_AMQP_URL", raising=False)
    monkeypatch.setenv("ORCHESTRATOR_AMPQ_URL", "amqp://x")
    with pytest.raises(
        ConfigurationError, match=r"no setting is called ORCHESTRATOR_AMPQ_URL \(is ORCHESTRATOR_AMQP_URL meant"
    ):
        load_settings()
