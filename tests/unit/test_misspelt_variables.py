"""A variable that looks like a setting and is none is named at the start of a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.settings import list_misspelt


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
