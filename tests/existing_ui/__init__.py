"""The GraphQL documents of the field's user interface, and a recorded set of its requests."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
VERSIONS = ("7.5.0", "9.0.0")

UNUSED = {"Customers2"}
"""A document of a hook that no page uses: it asks for the subscriptions of each customer."""


def read_documents() -> dict[str, str]:
    """Return each document by its version and name."""
    return {
        f"{path.parent.name}/{path.stem}": path.read_text()
        for version in VERSIONS
        for path in sorted((HERE / version).glob("*.graphql"))
        if path.stem not in UNUSED
    }
