"""Write the generated pages of the documentation: the reference of the public API, the table of proofs, and the names of ports.

``scripts/generate-docs`` writes them. A test compares them with what it would write.
"""

from __future__ import annotations

from pathlib import Path

from docpages import ported, proofs, reference

ROOT = Path(__file__).resolve().parents[2]


def pages() -> dict[str, str]:
    """Return every generated page: path in the repository → text."""
    return {**reference.pages(ROOT), **proofs.pages(ROOT), **ported.pages(ROOT)}
