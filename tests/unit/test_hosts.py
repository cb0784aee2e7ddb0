"""URLs with several hosts: one URL for each, whatever else the URL holds; the password is never shown."""

from __future__ import annotations

import pytest

from orchestrator.hosts import hide_password, host_of, split_hosts


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://u:p@h:1/v", ["amqp://u:p@h:1/v"]),
        ("amqp://h", ["amqp://h"]),
        ("amqp://u:p@a:1,b:2,c:3/v", ["amqp://u:p@a:1/v", "amqp://u:p@b:2/v", "amqp://u:p@c:3/v"]),
        ("amqp://a,b", ["amqp://a", "amqp://b"]),
        ("amqps://a,b:2/?heartbeat=10", ["amqps://a/?heartbeat=10", "amqps://b:2/?heartbeat=10"]),
        (
            "postgresql+asyncpg://u:p@[::1]:1,b/d",
            ["postgresql+asyncpg://u:p@[::1]:1/d", "postgresql+asyncpg://u:p@b/d"],
        ),
        ("amqp://u:p,q@a/v", ["amqp://u:p,q@a/v"]),
        ("amqp://a/v,w", ["amqp://a/v,w"]),
        ("postgresql://u@a/d?host=b,c", ["postgresql://u@a/d?host=b,c"]),
        ("postgresql://u:p/q@a,b/d", ["postgresql://u:p/q@a/d", "postgresql://u:p/q@b/d"]),
        ("not a URL, at all", ["not a URL, at all"]),
    ],
)
def test_a_url_with_several_hosts_is_split_into_one_for_each(url: str, expected: list[str]) -> None:
    assert split_hosts(url) == expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:hunter2@a:1,b:2/v", "amqp://u@a:1,b:2/v"),
        ("amqp://u@a/v", "amqp://u@a/v"),
        ("amqp://a", "amqp://a"),
        ("postgresql://u:hunter2@a/d?password=hunter2", "postgresql://u@a/d"),
        ("postgresql://u:hunt/er2@a/d", "postgresql://u@a/d"),
        ("hunter2", "…"),
        ("postgresql://u:p@hunter2@a/d", "postgresql://u@a/d"),
        ("postgresql://u:p@hunt/er2@a/d", "postgresql://u@a/d"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert hide_password(url) == shown


def test_the_host_of_a_url_includes_its_port() -> None:
    assert [host_of(url) for url in split_hosts("amqp://u:p@a:1,b/v")] == ["a:1", "b"]
    assert host_of("amqp://u:p@hunter2@a:1/v") == "a:1"
