"""What the command line takes as an argument, before it asks any server."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli import app, options

ID = "0" * 32
LATIN = "caf\udce9"
"""As Python hands over the bytes of a shell that writes another encoding."""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["start", LATIN], f"{LATIN!r} is no text"),
        (["start", "greet", "--key", LATIN], f"{LATIN!r} is no text"),
        (["start", "greet", "--key", "a\0b"], "'a\\x00b' is no text"),
        (["start", "greet", "--key", "k", "-i", '{"name": "\\ud800"}'], "page 1 is not JSON"),
        (["start", "greet", "-i", '{"\\ud800": 1}'], "page 1 is not JSON"),
        (["abort", ID, "--reason", LATIN], f"{LATIN!r} is no text"),
        (["skip", ID, "--reason", LATIN], f"{LATIN!r} is no text"),
        (["patch", ID, "--reason", LATIN, "--set", "a=1"], f"{LATIN!r} is no text"),
        (["patch", ID, "--reason", "x", "--remove", "a", "--remove", LATIN], f"{LATIN!r} is no text"),
        (["patch", ID, "--reason", "x", "--set", f"{LATIN}=1"], "is no text"),
        (["patch", ID, "--reason", "x", "--set", 'a="\\ud800"'], "the value of 'a' is not JSON"),
        (["list", "--workflow", LATIN], f"{LATIN!r} is no text"),
        (["pause", "--user", LATIN], "printable characters"),
        (["consumer", "--queue", LATIN], "letters, digits"),
        (["subscriptions", "list", "--product", LATIN], f"{LATIN!r} is no text"),
        (["subscriptions", "list", "--customer", LATIN], f"{LATIN!r} is no text"),
        (["subscriptions", "set-in-sync", ID, "--reason", LATIN], f"{LATIN!r} is no text"),
        (["db", "revision", "-m", LATIN], f"{LATIN!r} is no text"),
        (["db", "migrate-workflows", "-m", LATIN], f"{LATIN!r} is no text"),
        (["db", "migrate-domain-models", "-m", LATIN], f"{LATIN!r} is no text"),
        (["db", "migrate-domain-models", "--fixed-input", LATIN], f"{LATIN!r} is no text"),
        (["db", "downgrade", LATIN], f"{LATIN!r} is no text"),
    ],
)
def test_what_is_no_text_is_wrong_usage(arguments: list[str], told: str) -> None:
    """Nothing that we write to can hold it; it never gets that far."""
    done = CliRunner().invoke(app, arguments)

    assert done.exit_code == 2
    assert told in " ".join(done.stderr.replace("│", " ").split())


def test_an_input_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "LARGEST_INPUT", 1000)
    with pytest.raises(typer.BadParameter, match=r"^'/dev/zero' has more than 1000 bytes$"):
        options.read_pages(["@/dev/zero"])


def test_a_file_of_the_largest_size_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.json"
    page.write_text('{"node": "ams-1"}')
    monkeypatch.setattr(options, "LARGEST_INPUT", page.stat().st_size)
    assert options.read_pages([f"@{page}"]) == [{"node": "ams-1"}]


def test_more_steps_at_once_than_a_broker_delivers_are_wrong_usage() -> None:
    outcome = CliRunner().invoke(app, ["consumer", "--concurrency", str(10**30)])
    assert outcome.exit_code == 2
    assert "65535" in outcome.output
