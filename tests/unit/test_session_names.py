"""The names of a program's sessions in PostgreSQL, which cuts what is longer than 63 bytes."""

from __future__ import annotations

import os
import socket
from uuid import UUID

import pytest

from orchestrator.hosts import session_name

OWNER = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")


@pytest.mark.parametrize(
    ("host", "owner", "name"),
    [
        ("node-3", None, "orchestrator-consumer node-3:4711"),
        ("node-3", OWNER, "orchestrator-consumer node-3:4711 0f1e2d3c"),
        ("h" * 36, None, f"orchestrator-consumer {'h' * 36}:4711"),
        ("x" + "h" * 36, None, f"orchestrator-consumer {'h' * 36}:4711"),
        ("a" * 40 + "-7d9c5-x2k4v", OWNER, f"orchestrator-consumer {'a' * 15}-7d9c5-x2k4v:4711 0f1e2d3c"),
    ],
)
def test_a_session_has_the_end_of_a_long_host_s_name_and_its_whole_owner(
    monkeypatch: pytest.MonkeyPatch, host: str, owner: UUID | None, name: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    assert session_name("consumer", owner) == name
    assert len(name) <= 63
