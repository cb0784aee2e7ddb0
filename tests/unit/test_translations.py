"""The labels of forms' fields, from a folder of the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.translations import Translations
from orchestrator.errors import ConfigurationError

NONE: dict[str, Any] = {"forms": {"fields": {}}}


def test_without_a_folder_there_are_no_labels(tmp_path: Path) -> None:
    assert Translations.of(str(tmp_path / "nothing")).read("en-GB") == NONE


def test_a_language_is_answered_from_its_file_or_that_of_all_who_speak_it(tmp_path: Path) -> None:
    (tmp_path / "en-GB.json").write_text(json.dumps({"forms": {"fields": {"name": "Name", "name_info": "Yours"}}}))
    (tmp_path / "nl.json").write_text(json.dumps({"forms": {"fields": {"name": "Naam"}}, "more": {"own": 1}}))
    (tmp_path / "fr.json").write_text("{}")
    found = Translations.of(str(tmp_path))

    assert found.read("en-GB")["forms"]["fields"] == {"name": "Name", "name_info": "Yours"}
    assert found.read("en-US") == NONE
    assert found.read("nl-NL") == {"forms": {"fields": {"name": "Naam"}}, "more": {"own": 1}}
    assert found.read("fr") == NONE
    (tmp_path / "en-GB.json").write_text(json.dumps({"forms": {"fields": {"name": "Forename"}}}))
    assert found.read("en-GB")["forms"]["fields"] == {"name": "Forename"}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("{", "Invalid JSON"),
        ("[]", "Input should be"),
        ('{"forms": {"fields": {"name": 1}}}', "forms.fields.name: Input should be a valid string"),
        ('{"forms": []}', "forms: "),
        (f'{{"forms": {{"fields": {{"name": "{"x" * 5 * 1024**2}"}}}}}}', "larger than 4 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_at_the_start_and_is_no_error_later(
    tmp_path: Path, written: str, words: str
) -> None:
    found = Translations.of(str(tmp_path))
    (tmp_path / "en-GB.json").write_text(written)

    with pytest.raises(ConfigurationError, match=r"ORCHESTRATOR_TRANSLATIONS: .*en-GB\.json") as refused:
        Translations.of(str(tmp_path))

    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert found.read("en-GB") == NONE
