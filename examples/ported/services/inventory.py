"""The inventory: blocking calls over HTTP."""

from typing import Any

import requests

from examples.ported.settings import settings

TIMEOUT = 10


def find(kind: str, name: str) -> dict[str, Any] | None:
    """Look for something by its name."""
    answer = requests.get(f"{settings.inventory_url}/{kind}", params={"name": name}, timeout=TIMEOUT)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()
    return found[0] if found else None


def get(kind: str, number: int) -> dict[str, Any]:
    """Read something by its number."""
    answer = requests.get(f"{settings.inventory_url}/{kind}/{number}", timeout=TIMEOUT)
    answer.raise_for_status()
    return dict(answer.json())


def create(kind: str, payload: dict[str, Any]) -> int:
    """Create something, unless it is there already; return its number."""
    found = find(kind, payload["name"])
    if found is not None:
        return int(found["id"])
    answer = requests.post(f"{settings.inventory_url}/{kind}", json=payload, timeout=TIMEOUT)
    answer.raise_for_status()
    return int(answer.json()["id"])


def update(kind: str, number: int, payload: dict[str, Any]) -> None:
    """Change something."""
    answer = requests.patch(f"{settings.inventory_url}/{kind}/{number}", json=payload, timeout=TIMEOUT)
    answer.raise_for_status()


def delete(kind: str, number: int) -> None:
    """Delete something; it may be gone already."""
    answer = requests.delete(f"{settings.inventory_url}/{kind}/{number}", timeout=TIMEOUT)
    if answer.status_code != requests.codes.not_found:
        answer.raise_for_status()
