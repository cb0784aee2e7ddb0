"""The names of the settings are a contract; what is wrong with one is said in words, and never its password."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings, load_settings, variable_of

DATABASE = "postgresql+asyncpg://user:hunter2@localhost:5432/engine"
BROKER = "amqp://user:hunter2@localhost:5672/engine"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Only the two settings that have no default, and a folder without ``.env``."""
    ours = ("ORCHESTRATOR_", "DEFAULT_PRODUCT_WORKFLOWS", "TASK_LOG_RETENTION_DAYS")
    for name in [name for name in os.environ if name.upper().startswith(ours)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", DATABASE)
    monkeypatch.setenv("ORCHESTRATOR_AMQP_URL", BROKER)
    return monkeypatch


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        (
            "ORCHESTRATOR_WORKFLOWS",
            "network.workflows,network.products",
            "workflows",
            ("network.workflows", "network.products"),
        ),
        ("ORCHESTRATOR_WORKFLOWS", " a , ,b, ", "workflows", ("a", "b")),
        ("ORCHESTRATOR_WORKFLOWS", "", "workflows", ()),
        ("ORCHESTRATOR_QUEUE_TYPE", "classic", "queue_type", "classic"),
        ("ORCHESTRATOR_STEP_TIMEOUT", "2.5", "step_timeout", 2.5),
        ("ORCHESTRATOR_MAX_LOST_ATTEMPTS", "7", "max_lost_attempts", 7),
        ("ORCHESTRATOR_MAX_MESSAGE_BYTES", "5000", "max_message_bytes", 5000),
        ("ORCHESTRATOR_STATE_SOFT_LIMIT", "100", "state_soft_limit", 100),
        ("ORCHESTRATOR_STATE_HARD_LIMIT", "200", "state_hard_limit", 200),
        ("ORCHESTRATOR_LOG_FORMAT", "json", "log_format", "json"),
        ("orchestrator_log_format", "json", "log_format", "json"),
        ("DEFAULT_PRODUCT_WORKFLOWS", '["modify_note", "move"]', "default_product_workflows", ("modify_note", "move")),
        ("DEFAULT_PRODUCT_WORKFLOWS", "[]", "default_product_workflows", ()),
        ("DEFAULT_PRODUCT_WORKFLOWS", '["twice", "twice"]', "default_product_workflows", ("twice",)),
        ("TASK_LOG_RETENTION_DAYS", "14", "task_log_retention_days", 14),
    ],
)
def test_the_names_of_the_contract_set_what_they_say(
    environment: pytest.MonkeyPatch, variable: str, text: str, field: str, value: Any
) -> None:
    environment.setenv(variable, text)

    assert getattr(load_settings(), field) == value


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("ORCHESTRATOR_DATABASE_URL", "postgresql+asyncpg://u:hunter2@a:1,b:2,[::1]:3/d?target_session_attrs=primary"),
        ("ORCHESTRATOR_AMQP_URL", "amqps://u:hunter2@a.example:5671,b,[::1]:3/vhost?heartbeat=10"),
    ],
)
def test_a_url_may_name_several_hosts(environment: pytest.MonkeyPatch, variable: str, url: str) -> None:
    environment.setenv(variable, url)

    settings = load_settings()

    field = settings.database_url if "DATABASE" in variable else settings.amqp_url
    assert field.get_secret_value() == url


def test_the_defaults_of_the_contract_are_pinned() -> None:
    settings = load_settings()

    assert (
        settings.workflows,
        settings.queue_type,
        settings.step_timeout,
        settings.max_lost_attempts,
        settings.max_message_bytes,
        settings.state_soft_limit,
        settings.state_hard_limit,
        settings.log_format,
        settings.default_product_workflows,
        settings.task_log_retention_days,
    ) == ((), "quorum", 900.0, 5, 1024 * 1024, 64 * 1024, 1024 * 1024, "console", ("modify_note",), 3)


def test_the_urls_are_secrets_that_no_text_shows() -> None:
    settings = load_settings()

    assert settings.database_url.get_secret_value() == DATABASE
    assert settings.amqp_url.get_secret_value() == BROKER
    for text in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert "hunter2" not in text


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_the_usual_ways_to_write_a_postgresql_url_are_understood(environment: pytest.MonkeyPatch, scheme: str) -> None:
    environment.setenv("ORCHESTRATOR_DATABASE_URL", f"{scheme}://user:p%40ss@localhost/engine?ssl=require")

    url = load_settings().database_url.get_secret_value()

    assert url == "postgresql+asyncpg://user:p%40ss@localhost/engine?ssl=require"


@pytest.mark.parametrize("url", ["amqp://localhost", "amqps://user:pw@broker:5671/vhost", "amqp://u:p@h:5672/%2F"])
def test_the_usual_ways_to_write_an_amqp_url_are_understood(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("ORCHESTRATOR_AMQP_URL", url)

    assert load_settings().amqp_url.get_secret_value() == url


@pytest.mark.parametrize("missing", ["ORCHESTRATOR_DATABASE_URL", "ORCHESTRATOR_AMQP_URL"])
def test_a_missing_setting_is_named(environment: pytest.MonkeyPatch, missing: str) -> None:
    environment.delenv(missing)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert str(caught.value) == (
        f"wrong configuration: {missing} is not set ('scripts/services env' prints the two server URLs)"
    )


def test_all_that_is_wrong_is_named_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("ORCHESTRATOR_DATABASE_URL")
    environment.delenv("ORCHESTRATOR_AMQP_URL")
    environment.setenv("ORCHESTRATOR_STEP_TIMEOUT", "0")

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    for name in ("ORCHESTRATOR_DATABASE_URL", "ORCHESTRATOR_AMQP_URL", "ORCHESTRATOR_STEP_TIMEOUT"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        (
            "ORCHESTRATOR_DATABASE_URL",
            "mysql://u:hunter2@h/d",
            "must look like postgresql+asyncpg://user:password@host",
        ),
        ("ORCHESTRATOR_DATABASE_URL", "hunter2", "must look like postgresql+asyncpg://user:password@host"),
        ("ORCHESTRATOR_DATABASE_URL", "postgresql://", "must look like postgresql+asyncpg://user:password@host"),
        ("ORCHESTRATOR_AMQP_URL", "http://u:hunter2@h/", "must look like amqp://user:password@host:5672/vhost"),
        ("ORCHESTRATOR_AMQP_URL", "amqp://u:hunter2@h:port/", "must look like amqp://user:password@host:5672/vhost"),
        ("ORCHESTRATOR_AMQP_URL", "hunter2", "must look like amqp://user:password@host:5672/vhost"),
        ("ORCHESTRATOR_AMQP_URL", "amqp://u:hunter2@a:1,,b/", "several hosts …@first:5672,second:5672/vhost"),
        ("ORCHESTRATOR_AMQP_URL", "amqp://u:hunter2@a:1,amqp://b/", "several hosts …@first:5672,second:5672/vhost"),
        (
            "ORCHESTRATOR_DATABASE_URL",
            "postgresql://u:hunter2@a,b:x/d",
            "several hosts …@first:5432,second:5432/database",
        ),
        (
            "ORCHESTRATOR_DATABASE_URL",
            f"{DATABASE}?target_session_attrs=standby",
            "target_session_attrs must be one of",
        ),
        ("ORCHESTRATOR_DATABASE_URL", "postgresql://u:hunter2@h:70968/d", "must look like postgresql+asyncpg://"),
        ("ORCHESTRATOR_DATABASE_URL", "postgresql://u:hunter2@[::1]:99999/d", "must look like postgresql+asyncpg://"),
        ("ORCHESTRATOR_DATABASE_URL", "postgresql://u:hunter2@a:1,b:99999/d", "with several hosts"),
        ("ORCHESTRATOR_DATABASE_URL", "postgresql://u:p@hunter2@h:1/d", "an @ in the password is written %40"),
        ("ORCHESTRATOR_DATABASE_URL", "postgresql://u:p@?hunter2@h/d", "an @ in the password is written %40"),
        ("ORCHESTRATOR_DATABASE_URL", "postgresql://u:p@/hunter2@h/d", "an @ in the password is written %40"),
        ("ORCHESTRATOR_AMQP_URL", "amqp://u:p@hunter2@a:1,b:2/v", "an @ in the password is written %40"),
        ("ORCHESTRATOR_AMQP_URL", "amqp://u:p@#hunter2@a/v", "an @ in the password is written %40"),
        ("ORCHESTRATOR_DATABASE_URL", "postgresql://u:hunter2@h:/d", "must look like postgresql+asyncpg://"),
        ("ORCHESTRATOR_DATABASE_URL", "postgresql://u:hunter2@h:x/d", "must look like postgresql+asyncpg://"),
        ("ORCHESTRATOR_STEP_TIMEOUT", "inf", "Input should be less than or equal to 31622400"),
        ("ORCHESTRATOR_STEP_TIMEOUT", "nan", "Input should be"),
        ("ORCHESTRATOR_REDISPATCH_AFTER", "1e12", "Input should be less than or equal to 31622400"),
        ("ORCHESTRATOR_DRAIN_GRACE", "1e12", "Input should be less than or equal to 31622400"),
        ("ORCHESTRATOR_PRESUMED_DEAD_AFTER", "1e5", "Input should be less than or equal to 36000"),
        ("TASK_LOG_RETENTION_DAYS", "1000000000", "Input should be less than or equal to 36600"),
        ("ORCHESTRATOR_METRICS_ADDRESS", "9100", "must look like host:port, or :port"),
        ("ORCHESTRATOR_CUSTOMERS", "names.py", "must look like module:function"),
        ("ORCHESTRATOR_STEP_TIMEOUT", "0", "Input should be greater than 0"),
        ("ORCHESTRATOR_STEP_TIMEOUT", "soon", "Input should be a valid number"),
        ("ORCHESTRATOR_MAX_LOST_ATTEMPTS", "0", "Input should be greater than or equal to 1"),
        ("ORCHESTRATOR_MAX_MESSAGE_BYTES", "-1", "Input should be greater than 0"),
        ("ORCHESTRATOR_QUEUE_TYPE", "stream", "Input should be 'quorum' or 'classic'"),
        ("ORCHESTRATOR_LOG_FORMAT", "xml", "Input should be 'console' or 'json'"),
        (
            "DEFAULT_PRODUCT_WORKFLOWS",
            "modify_note",
            'must be a JSON list of names of workflows, such as ["modify_note"]',
        ),
        ("DEFAULT_PRODUCT_WORKFLOWS", '"modify_note"', "must be a JSON list of names of workflows"),
        ("DEFAULT_PRODUCT_WORKFLOWS", '{"modify_note": 1}', "must be a JSON list of names of workflows"),
        ("DEFAULT_PRODUCT_WORKFLOWS", "[1]", "must be a JSON list of names of workflows"),
        ("DEFAULT_PRODUCT_WORKFLOWS", '[" "]', "must be a JSON list of names of workflows"),
        ("DEFAULT_PRODUCT_WORKFLOWS", "", "must be a JSON list of names of workflows"),
        ("TASK_LOG_RETENTION_DAYS", "-1", "Input should be greater than or equal to 0"),
        ("TASK_LOG_RETENTION_DAYS", "soon", "Input should be a valid integer"),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(
    environment: pytest.MonkeyPatch, variable: str, value: str, text: str
) -> None:
    environment.setenv(variable, value)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert str(caught.value).startswith(f"wrong configuration: {variable}: ")
    assert text in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "is not set" not in str(caught.value)
    assert caught.value.__suppress_context__, "the traceback of the original shows the value"


def test_a_file_named_env_is_read_and_the_environment_wins(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "ORCHESTRATOR_LOG_FORMAT=json\nORCHESTRATOR_STEP_TIMEOUT=7\nUNRELATED=1\n"
        "DEFAULT_PRODUCT_WORKFLOWS='[\"audit\"]'\nTASK_LOG_RETENTION_DAYS=30\n"
    )
    environment.setenv("ORCHESTRATOR_STEP_TIMEOUT", "8")
    environment.setenv("TASK_LOG_RETENTION_DAYS", "31")

    settings = load_settings()

    assert (settings.log_format, settings.step_timeout) == ("json", 8.0)
    assert (settings.default_product_workflows, settings.task_log_retention_days) == (("audit",), 31)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().step_timeout = 3  # type: ignore[misc]


def test_a_setting_of_another_program_changes_nothing(environment: pytest.MonkeyPatch) -> None:
    """All but two have the prefix; those two are not read with it."""
    environment.setenv("LOG_FORMAT", "json")
    environment.setenv("ORCHESTRATOR_DEFAULT_PRODUCT_WORKFLOWS", '["other"]')

    settings = load_settings()

    assert (settings.log_format, settings.default_product_workflows) == ("console", ("modify_note",))
    assert [name for name in Settings.model_fields if not variable_of(name).startswith("ORCHESTRATOR_")] == [
        "default_product_workflows",
        "task_log_retention_days",
    ]
    assert json.loads(settings.model_dump_json())["database_url"] == "**********"


def test_the_variable_of_a_field_is_the_one_that_sets_it(environment: pytest.MonkeyPatch) -> None:
    for name, wrong in (("step_timeout", "x"), ("task_log_retention_days", "x"), ("default_product_workflows", "x")):
        environment.setenv(variable_of(name), wrong)

        with pytest.raises(ConfigurationError, match=f"^wrong configuration: {variable_of(name)}: "):
            load_settings()
        environment.delenv(variable_of(name))


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("application_name=x", "programs give names of their own"),
        ("connect_timeout=3", "set ORCHESTRATOR_CONNECT_TIMEOUT instead"),
        ("channel_binding=require", "the options are gsslib, "),
        ("statement_cache_size=0", "the options are gsslib, "),
        ("sslmode=require&blank=", "'blank' cannot be used"),
        ("sslmode=verify-full&sslrootcert=none.pem", "its option 'sslrootcert' names no file: none.pem"),
    ],
)
def test_an_option_of_the_database_url_that_cannot_be_used_is_named(
    environment: pytest.MonkeyPatch, option: str, advice: str
) -> None:
    environment.setenv("ORCHESTRATOR_DATABASE_URL", f"{DATABASE}?{option}")
    with pytest.raises(
        ConfigurationError, match=r"^wrong configuration: ORCHESTRATOR_DATABASE_URL: .*option"
    ) as caught:
        load_settings()
    assert advice in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_of_settings_that_cannot_be_read_is_reported_in_one_line(tmp_path: Path) -> None:
    Path(".env").write_bytes(b"ORCHESTRATOR_LOG_FORMAT=\xff\xfe\n")
    with pytest.raises(ConfigurationError, match=r"^wrong configuration: \.env cannot be read: 'utf-8' codec"):
        load_settings()


def test_people_see_no_password_among_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://me:CANARY-1@db:5432/x?password=CANARY-2")
    monkeypatch.setenv("ORCHESTRATOR_AMQP_URL", "amqp://me:CANARY-3@one:5672,two:5672/")
    monkeypatch.setenv("ORCHESTRATOR_MANAGEMENT_URL", "http://me:CANARY-4@one:15672")
    monkeypatch.setenv("ORCHESTRATOR_WORKFLOWS", "network, ims")
    values = load_settings().list_values()
    assert "CANARY" not in str(values)
    assert values["ORCHESTRATOR_AMQP_URL"] == "amqp://me@one:5672,two:5672/"
    assert values["ORCHESTRATOR_MANAGEMENT_URL"] == "http://me@one:15672"
    assert values["ORCHESTRATOR_WORKFLOWS"] == "network, ims"
    assert values["TASK_LOG_RETENTION_DAYS"] == "3"
