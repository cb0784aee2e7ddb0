"""What is generated agrees with what it is generated from."""

from __future__ import annotations

import re
import subprocess
import sys

from orchestrator.engine.transitions import as_document, as_markdown
from tests.architecture.repository import ROOT, files, text
from tests.architecture.test_public_names import AUTHORING


def test_the_page_about_transitions_is_up_to_date() -> None:
    assert text("docs/transitions.md") == as_document(), (
        "run: python -m orchestrator.engine.transitions > docs/transitions.md"
    )
    assert as_markdown() in text("docs/transitions.md")


def test_the_page_is_made_by_the_command_that_it_names() -> None:
    command = [sys.executable, "-m", "orchestrator.engine.transitions"]

    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert printed.stdout == text("docs/transitions.md")


def test_the_generated_reference_and_table_of_proofs_are_up_to_date() -> None:
    """Also fails when ``tests/guarantees.toml`` names a test that does not exist."""
    checked = subprocess.run(
        [sys.executable, "-m", "docpages", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": "scripts", "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, f"run: scripts/generate-docs\n{checked.stdout}{checked.stderr}"


def test_every_public_name_is_in_the_reference() -> None:
    reference = text("docs/reference.md")
    assert [name for names in AUTHORING.values() for name in names if f"[`{name}`]" not in reference] == []


def test_pages_use_the_terms_of_the_field() -> None:
    """See the glossary. These words were ours: each stands for a term that a reader already knows."""
    private = re.compile(
        r"\b(told|mend(s|ed)?|doors?|burial|buried|heirs?|strays?|spoilt|somebody|in words|judged?)\b", re.IGNORECASE
    )
    pages = [name for name in files() if name.endswith(".md")]
    assert {name: found for name in pages if (found := sorted({one[0] for one in private.findall(text(name))}))} == {}


def test_the_page_about_the_architecture_shows_the_layers_that_are_enforced() -> None:
    configured = re.search(r"^layers = \[\n(.*?)^\]", text("pyproject.toml"), re.MULTILINE | re.DOTALL)
    assert configured is not None
    layers = re.findall(r'"([^"]+)"', configured.group(1))
    shown = re.sub(r"\s+", " ", text("docs/architecture.md"))
    assert " > ".join(f"`{layer}`" for layer in layers) in shown


def test_every_place_that_the_page_about_the_architecture_names_exists() -> None:
    named = re.findall(r"`((?:orchestrator|consumers|tests)/[\w/.]*)", text("docs/architecture.md"))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_test_that_a_page_names_is_where_its_link_leads() -> None:
    pages = [name for name in files() if name.startswith("docs/") and name.endswith(".md")]
    named = {
        (page, *found)
        for page in pages
        for found in re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/.]+)\)", text(page))
    }
    assert len([one for one in named if one[0] == "docs/api-faults.md"]) > 60
    assert [one for one in sorted(named) if not re.search(rf"def {one[1]}\(", text(one[2]))] == []
