"""The tables of proofs: ``tests/guarantees.toml`` and the tests that it names, as two pages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PAGE, SECOND_PAGE = "docs/reliability-proofs.md", "docs/reliability-proofs-2.md"

ON_SECOND_PAGE = ("Subscriptions", "Schedules", "Tasks that ship", "The HTTP API")
"""Topics; a page must be short enough to read."""

_TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)

_HEAD = """# Proofs

<!-- Generated, do not edit: scripts/generate-docs. The source is tests/guarantees.toml. -->

Which mechanism keeps each [guarantee](reliability.md), and which tests prove it. Tests in `tests/acceptance` drive the real
programs from outside, those in `tests/integration` run parts of the engine on real servers, those in `tests/unit` the pure core.
Subscriptions, schedules, tasks that ship and the HTTP API: [second page](reliability-proofs-2.md).
"""

_SECOND_HEAD = """# Proofs: subscriptions, schedules, tasks that ship and the HTTP API

<!-- Generated, do not edit: scripts/generate-docs. The source is tests/guarantees.toml. -->

Continues the [first page](reliability-proofs.md).
"""


def _places(root: Path) -> dict[str, str]:
    """Return the file of every test function: name → path."""
    return {
        name: str(path.relative_to(root))
        for path in sorted((root / "tests").rglob("test_*.py"))
        for name in _TEST.findall(path.read_text())
    }


def pages(root: Path) -> dict[str, str]:
    """Return the pages.

    Raises:
        LookupError: a guarantee names a test that does not exist.
    """
    places = _places(root)
    rows = tomllib.loads((root / "tests" / "guarantees.toml").read_text())["guarantees"]
    missing = [name for row in rows for name in row["tests"] if name not in places]
    if missing:
        raise LookupError(f"tests/guarantees.toml names tests that do not exist: {', '.join(missing)}")
    lines = {PAGE: [_HEAD], SECOND_PAGE: [_SECOND_HEAD]}
    for topic in dict.fromkeys(row["topic"] for row in rows):
        page = lines[SECOND_PAGE if topic in ON_SECOND_PAGE else PAGE]
        page += [f"## {topic}", "", "| guarantee | mechanism | proof |", "| --- | --- | --- |"]
        for row in rows:
            if row["topic"] == topic:
                proof = ", ".join(f"[`{name}`](../{places[name]})" for name in row["tests"])
                page.append(f"| {row['guarantee']} | {row['mechanism']} | {proof} |")
        page.append("")
    return {name: "\n".join(page).rstrip() + "\n" for name, page in lines.items()}
