"""The settings of who may use the HTTP API: what contradicts itself, or opens more than was meant, is refused at start-up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.settings import load_settings

OIDC = {"ORCHESTRATOR_OIDC_ISSUER": "https://sso.example", "ORCHESTRATOR_OIDC_AUDIENCE": "orchestrator"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Only the two settings that have no default, and a folder without ``.env``."""
    for name in [name for name in os.environ if name.upper().startswith("ORCHESTRATOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://user@localhost/engine")
    monkeypatch.setenv("ORCHESTRATOR_AMQP_URL", "amqp://user:secret@localhost/")
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        ({}, "auth", ()),
        ({"ORCHESTRATOR_AUTH": ""}, "auth", ()),
        ({"ORCHESTRATOR_AUTH": "none"}, "auth", ("none",)),
        ({"ORCHESTRATOR_AUTH": "api-keys"}, "auth", ("api-keys",)),
        ({"ORCHESTRATOR_AUTH": " oidc , api-keys ", **OIDC}, "auth", ("oidc", "api-keys")),
        ({"ORCHESTRATOR_AUTH": "oidc", **OIDC}, "oidc_user_claim", "sub"),
        ({"ORCHESTRATOR_AUTH": "oidc", **OIDC}, "oidc_roles_claim", "roles"),
        (
            {"ORCHESTRATOR_AUTH": "oidc", **OIDC, "ORCHESTRATOR_OIDC_AUDIENCE": "a,b"},
            "oidc_audience",
            ("a", "b"),
        ),
        (
            {"ORCHESTRATOR_AUTH": "oidc", **OIDC, "ORCHESTRATOR_OIDC_ISSUER": "http://127.0.0.1:8080/realms/x/"},
            "oidc_issuer",
            "http://127.0.0.1:8080/realms/x/",
        ),
        ({"ORCHESTRATOR_OIDC_ROLES": '{"noc": "operate"}'}, "oidc_roles", {"noc": "operate"}),
        (
            {"ORCHESTRATOR_CORS_ORIGINS": "https://ui.example, http://localhost:3000"},
            "cors_origins",
            ("https://ui.example", "http://localhost:3000"),
        ),
        ({"ORCHESTRATOR_PUBLIC_URL": "https://orch.example/noc/"}, "public_url", "https://orch.example/noc"),
        ({"ORCHESTRATOR_PUBLIC_URL": "https://orch.example/"}, "public_url", "https://orch.example"),
    ],
)
def test_each_setting_is_what_its_variable_says(
    environment: pytest.MonkeyPatch, variables: dict[str, str], field: str, value: Any
) -> None:
    for name, text in variables.items():
        environment.setenv(name, text)
    assert getattr(load_settings(), field) == value


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ORCHESTRATOR_AUTH": "None"}, "ORCHESTRATOR_AUTH"),
        ({"ORCHESTRATOR_AUTH": "password"}, "ORCHESTRATOR_AUTH"),
        ({"ORCHESTRATOR_AUTH": "none,api-keys"}, "'none' excludes the others"),
        ({"ORCHESTRATOR_AUTH": "oidc"}, "set ORCHESTRATOR_OIDC_ISSUER and ORCHESTRATOR_OIDC_AUDIENCE"),
        (
            {"ORCHESTRATOR_AUTH": "oidc", "ORCHESTRATOR_OIDC_ISSUER": "https://sso.example"},
            "ORCHESTRATOR_OIDC_AUDIENCE",
        ),
        (OIDC, "ORCHESTRATOR_AUTH is not"),
        ({"ORCHESTRATOR_OIDC_ISSUER": "http://sso.example"}, "must be an https URL"),
        ({"ORCHESTRATOR_OIDC_ISSUER": "http://localhost.evil.example"}, "must be an https URL"),
        ({"ORCHESTRATOR_OIDC_ISSUER": "https://sso.example?x=1"}, "must be an https URL"),
        ({"ORCHESTRATOR_OIDC_ISSUER": "sso.example"}, "must be an https URL"),
        ({"ORCHESTRATOR_OIDC_ROLES": '{"noc": "root"}'}, "ORCHESTRATOR_OIDC_ROLES"),
        ({"ORCHESTRATOR_CORS_ORIGINS": "*"}, "'*' is no origin"),
        ({"ORCHESTRATOR_CORS_ORIGINS": "https://ui.example/"}, "is no origin"),
        ({"ORCHESTRATOR_CORS_ORIGINS": "https://UI.example"}, "is no origin"),
        ({"ORCHESTRATOR_CORS_ORIGINS": "null"}, "is no origin"),
        ({"ORCHESTRATOR_PUBLIC_URL": "orch.example"}, "without /api"),
        ({"ORCHESTRATOR_PUBLIC_URL": "https://orch.example/api"}, "without /api"),
        ({"ORCHESTRATOR_PUBLIC_URL": "https://orch.example/a b"}, "without /api"),
    ],
)
def test_what_contradicts_itself_or_is_unsafe_is_refused_in_words(
    environment: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, text in variables.items():
        environment.setenv(name, text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert words in str(refused.value)


def test_a_list_of_roles_that_is_no_json_is_refused_in_one_line(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ORCHESTRATOR_OIDC_ROLES", "noc=operate")
    with pytest.raises(ConfigurationError, match="ORCHESTRATOR_OIDC_ROLES"):
        load_settings()
