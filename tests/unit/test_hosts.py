"""URLs with several hosts: one URL for each, whatever else the URL holds; the password is never shown."""

from __future__ import annotations

import pytest

from orchestrator.hosts import has_one_login, has_usable_port, hide_password, host_of, options_of, split_hosts


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
        ("postgresql://u:p@hunter2@a/d", "postgresql://u@…"),
        ("postgresql://u:p@hunt/er2@a/d", "postgresql://u@…"),
        ("amqp://u:p@hunter?2@a/v", "amqp://u@…"),
        ("amqp://u:p@hunter#2@a/v", "amqp://u@…"),
        ("postgresql://u:p@a/d?sslrootcert=/etc/me@here", "postgresql://u@a/d"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert hide_password(url) == shown


def test_the_host_of_a_url_includes_its_port() -> None:
    assert [host_of(url) for url in split_hosts("amqp://u:p@a:1,b/v")] == ["a:1", "b"]
    assert host_of("amqp://u:p@hunter2@a:1/v") == "a:1"


def test_the_options_of_a_url_begin_behind_its_password() -> None:
    assert options_of("postgresql://u:pa?ss@h/d?ssl=require") == "ssl=require"
    assert options_of("postgresql://u:pa?ss@h/d") == ""


@pytest.mark.parametrize(
    "url",
    [
        "amqp://h/v",
        "amqp://u:p@h/v",
        "postgresql:///d",
        "postgresql://u:pa?ss@h/d",
        "postgresql://u:pa/ss@h/d",
        "postgresql://h/d?sslrootcert=/etc/me@here",
    ],
)
def test_a_login_ends_with_the_only_at_sign(url: str) -> None:
    assert has_one_login(url)


@pytest.mark.parametrize("url", ["amqp://u:p@ss@h/v", "amqp://u:p@s?s@h/v", "amqp://u:p@s#s@h/v", "amqp://u:p@s/s@h/d"])
def test_of_several_at_signs_none_surely_ends_the_login(url: str) -> None:
    assert not has_one_login(url)


@pytest.mark.parametrize(
    ("url", "usable"),
    [
        ("amqp://u:p@h/v", True),
        ("amqp://u:p@h:65535/v", True),
        ("amqp://u:p@[::1]:5672/v", True),
        ("amqp://u:p@[::1]/v", True),
        ("postgresql:///d", True),
        ("postgresql://u:p@h:/d", False),
        ("amqp://u:p@h:65536/v", False),
        ("amqp://u:p@h:0000000000070000/v", False),
    ],
)
def test_a_port_is_a_number_that_there_can_be(url: str, *, usable: bool) -> None:
    assert has_usable_port(url) is usable
