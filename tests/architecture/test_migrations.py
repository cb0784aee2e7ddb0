"""The engine's migrations are one line, and their files are numbered in its order."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

VERSIONS = Path(__file__).resolve().parents[2] / "migrations" / "versions"


def test_each_migration_follows_the_one_before_it() -> None:
    """Two branches that each add the next number would meet here."""
    files = sorted(VERSIONS.glob("[0-9]*.py"))
    texts = {path.name[:4]: path.read_text() for path in files}
    assert len(texts) == len(files), f"two migrations have one number: {[path.name for path in files]}"
    revisions = {name: re.findall(r'^(?:down_)?revision = "(\w+)"', text, re.MULTILINE) for name, text in texts.items()}
    assert revisions["0001"] == ["0001"]
    assert [revisions[name] for name in list(texts)[1:]] == [[name, before] for before, name in pairwise(texts)]
