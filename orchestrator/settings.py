"""Configuration, read from the environment and ``.env``. Built by the programs' entry points only, and handed down."""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from urllib.parse import parse_qs

from pydantic import AmqpDsn, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from orchestrator.errors import ConfigurationError
from orchestrator.hosts import has_one_login, has_usable_port, hide_password, host_of, options_of, split_hosts
from orchestrator.text import format_message, format_problem

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:[0-9]{1,5})?")
_WEB_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")
_LOCAL = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?(/|$)")
_DATABASE_OPTIONS = {
    *("gsslib", "krbsrvname", "options", "passfile", "password", "service", "ssl", "ssl_max_protocol_version"),
    *(
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
    ),
    *("target_session_attrs", "user"),
}
"""Of libpq's (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS) those that asyncpg reads in a URL;
and ``ssl``, which is SQLAlchemy's name for ``sslmode``."""

_FILES = {"passfile", "sslcert", "sslcrl", "sslkey", "sslrootcert"}
"""Named here when they are not there: the client's error has no name."""

_SET_OTHERWISE = {
    "connect_timeout": "set ORCHESTRATOR_CONNECT_TIMEOUT instead",
    "application_name": "programs give names of their own",
    "fallback_application_name": "programs give names of their own",
    "client_encoding": "it is always UTF8",
}
_PREFIX, _OF_SERVICES = "ORCHESTRATOR_", "ORCHESTRATOR_SERVICES_"
_IN_FILE = re.compile(r"^[ \t]*(?:export[ \t]+)?(\w+)[ \t]*=", re.MULTILINE)
_NOT_SETTINGS = {"ORCHESTRATOR_API_KEY"}
"""Read by the command line alone."""

_NO_BROKER = SecretStr("amqp://no-broker.invalid")

_LOOKS = {
    "ORCHESTRATOR_METRICS_ADDRESS": "must look like host:port, or :port for all of this machine's addresses",
    "ORCHESTRATOR_CUSTOMERS": "must look like module:function",
    "ORCHESTRATOR_OIDC_SCOPE": "must be words of visible ASCII characters with one blank between them",
}
"""What settings that have a pattern must look like."""

_WRITABLE = ("read-write", "primary", "any")

Bytes = Annotated[int, Field(gt=0, le=64 * 1024**2)]
"""At most 64 MiB, because PostgreSQL takes 255 MiB for one JSON value in its own form, which is larger than the text."""

Level = Literal["debug", "info", "warning", "error"]

Seconds = Annotated[float, Field(gt=0, le=366 * 86_400)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings that use cases and steps need; see :class:`Settings`."""

    redispatch_after: float
    step_timeout: float
    state_soft_limit: int
    state_hard_limit: int
    public_url: str | None = None


class Settings(BaseSettings):
    """Everything that can be set. Times are seconds.

    Names are the environment variables' without ``ORCHESTRATOR_``, but for the two with an alias: those are set under
    that name wherever workflows of this kind are run.
    """

    model_config = SettingsConfigDict(
        env_prefix="ORCHESTRATOR_", env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    database_url: SecretStr
    amqp_url: SecretStr
    workflows: Annotated[tuple[str, ...], NoDecode] = ()
    """Modules to import: the user's workflows and products, separated by commas."""
    migrations: str = "migrations/project"
    """The folder of the user's own migrations, beside the engine's; it need not exist."""
    management_url: str | None = None
    """Where RabbitMQ's management UI is, for people; the engine does not use it."""

    queue_type: Literal["quorum", "classic"] = "quorum"
    max_message_bytes: Bytes = 1024 * 1024
    publish_timeout: Seconds = 5.0
    """How long a confirm may take; after that the outcome is unknown and the message is sent again later."""
    connect_timeout: Seconds = 3.0
    """How long PostgreSQL or RabbitMQ may take to answer at first; people wait for it, so less than 5."""

    database_pool_size: Annotated[int, Field(ge=2, le=500)] = 10
    """Connections for steps that use the database and for use cases; the engine's own statements have a few more."""
    step_timeout: Seconds = 900.0
    step_threads: Annotated[int, Field(ge=1, le=2000)] = 64
    """How many plain (not async) steps of each queue a consumer runs at once."""
    run_ahead: Annotated[int, Field(ge=0, le=10_000)] = 20
    """How many more steps of a process a consumer runs after the one that it got a command for; 0 is one command a step."""
    run_ahead_seconds: Seconds = 2.0
    """How long a consumer goes on with a process before it lets others come; looked at between its steps."""
    max_lost_attempts: Annotated[int, Field(ge=1)] = 5
    """How many child processes in a row may die while they run a step alone before it is failed."""
    state_soft_limit: Bytes = 64 * 1024
    """Bytes of a process's state as JSON above which a step is logged with a warning."""
    state_hard_limit: Bytes = 1024 * 1024
    """Bytes above which a step fails."""

    heartbeat_interval: Seconds = 2.0
    """How often a consumer reports that it is alive."""
    presumed_dead_after: Annotated[float, Field(gt=0, le=36_000)] = 10.0
    """How long a consumer may be silent before its steps are given to others: five heartbeats. About as long for a server."""
    reconcile_interval: Seconds = 1.0
    """How often a coordinator looks for processes that are due."""
    redispatch_after: Seconds = 5.0
    """How long a command may go unclaimed before it is published again; doubles each time, up to ten minutes."""
    drain_grace: Seconds = 30.0
    """How long running steps may take to finish after SIGTERM before they are cancelled and given back."""
    metrics_address: Annotated[str, Field(pattern=r"^[^:]*:[0-9]{1,5}$|^\[.*\]:[0-9]{1,5}$")] | None = None
    """Where a program answers ``GET /metrics`` for Prometheus, as ``host:port``; by default it does not."""

    default_product_workflows: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("modify_note",), validation_alias="DEFAULT_PRODUCT_WORKFLOWS"
    )
    """Workflows that all products have, as a JSON list; each is linked once a migration has registered it."""
    task_log_retention_days: Annotated[int, Field(ge=0, le=36_600)] = Field(
        default=3, validation_alias="TASK_LOG_RETENTION_DAYS"
    )
    """How many days finished tasks are kept before the clean-up task deletes them."""
    shipped_schedules: bool = True
    """Whether the schedules that ship with the engine start anything; without it only those that people enable."""

    auth: Annotated[tuple[Literal["none", "api-keys", "oidc"], ...], NoDecode] = ()
    """How the API knows who sends a request, separated by commas; when not set, it serves this machine only."""
    oidc_issuer: str | None = None
    """The URL of the OIDC issuer, exactly as in the tokens' ``iss``."""
    oidc_audience: Annotated[tuple[str, ...], NoDecode] = ()
    """What a token's ``aud`` must name, separated by commas: one of them suffices."""
    oidc_user_claim: Annotated[str, Field(min_length=1)] = "sub"
    """The claim whose value is the user's name in the audit trail."""
    oidc_roles_claim: Annotated[str, Field(min_length=1)] = "roles"
    """The claim with the user's roles."""
    oidc_roles: Annotated[dict[str, Literal["read", "start", "operate", "admin"]], NoDecode] = {}
    """The role of each value of that claim, as a JSON object; when empty, the values are the roles' names."""
    oidc_client_id: str | None = None
    """The name under which the issuer knows the pages of ``/ui``; with it people sign in there through the issuer."""
    oidc_client_secret: SecretStr | None = None
    """What the issuer has given to that client; a public client has none, PKCE is used with both."""
    oidc_scope: Annotated[str, Field(pattern=r"^[!-~]+( [!-~]+)*$")] = "openid"
    """What is requested at that sign-in, separated by blanks; ``openid`` must be in it."""
    ui_session: Annotated[float, Field(gt=0, le=30 * 86_400)] = 43_200.0
    """How many seconds a sign-in to the pages of ``/ui`` lasts; it ends earlier with the key or token."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may use the API, separated by commas."""
    public_url: str | None = None
    """How clients reach the API, without ``/api``: behind a proxy. Consumers put it before ``callback_route``."""
    requests_per_user: Annotated[int, Field(ge=0)] = 100
    """How many requests one user may have in progress in one API program; more are answered with 429. 0 for any number."""

    graphql_introspection: bool = True
    """Whether GraphQL answers what its schema is."""
    customers: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    """A function that names customers, as ``module:function``: it gets ids, and returns names by ids."""
    translations: str = "translations"
    """The folder of the labels of forms' fields, a file for each language, such as ``en-GB.json``; it need not exist."""

    log_format: Literal["console", "json"] = "console"
    log_level: Level = "info"
    log_levels: Annotated[dict[str, Level], NoDecode] = {}
    """Logger → its level, separated by commas; the levels of authors' loggers and of libraries, too."""

    @property
    def limits(self) -> Limits:
        """The settings that use cases and steps need."""
        return Limits(**{one.name: getattr(self, one.name) for one in fields(Limits)})

    def list_values(self) -> dict[str, str]:
        """Return the environment variable of each setting with its value as people may see it: no password, no secret."""
        return {variable_of(name): _show(getattr(self, name)) for name in type(self).model_fields}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.presumed_dead_after < 2 * self.heartbeat_interval:
            raise ValueError(
                "ORCHESTRATOR_PRESUMED_DEAD_AFTER must be at least twice ORCHESTRATOR_HEARTBEAT_INTERVAL, or one late"
                " heartbeat makes a living consumer look dead"
            )
        return self

    @model_validator(mode="after")
    def _check_authentication(self) -> Self:
        if "none" in self.auth and len(self.auth) > 1:
            raise ValueError("ORCHESTRATOR_AUTH: 'none' excludes the others")
        if "oidc" in self.auth and not (self.oidc_issuer and self.oidc_audience):
            raise ValueError(
                "ORCHESTRATOR_AUTH has oidc: set ORCHESTRATOR_OIDC_ISSUER and ORCHESTRATOR_OIDC_AUDIENCE as well"
            )
        if self.oidc_client_id and "oidc" not in self.auth:
            raise ValueError("ORCHESTRATOR_OIDC_CLIENT_ID is set, and ORCHESTRATOR_AUTH has no oidc: add it")
        if "openid" not in self.oidc_scope.split():
            raise ValueError("ORCHESTRATOR_OIDC_SCOPE must have openid, or the issuer sends no ID token")
        if self.oidc_issuer and not self.auth:
            raise ValueError("ORCHESTRATOR_OIDC_ISSUER is set, and ORCHESTRATOR_AUTH is not: set it to oidc")
        return self

    @field_validator("oidc_roles", mode="before")
    @classmethod
    def _read_roles(cls, value: object) -> object:
        if not isinstance(value, str) or not value.strip():
            return value or {}
        try:
            return dict(json.loads(value))
        except (TypeError, ValueError):
            raise ValueError('must be a JSON object such as {"noc": "operate", "sales": "start"}') from None

    @field_validator("oidc_issuer")
    @classmethod
    def _check_issuer(cls, value: str | None) -> str | None:
        if value is None or (_WEB_URL.fullmatch(value) and (value.startswith("https://") or _LOCAL.match(value))):
            return value
        raise ValueError(
            "must be an https URL such as https://sso.example/realms/network: the keys come from there (http for localhost only)"
        )

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = value.rstrip("/")
        if not _WEB_URL.fullmatch(value) or value.endswith("/api"):
            raise ValueError("must be a URL such as https://orch.example or https://orch.example/prefix, without /api")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if not _ORIGIN.fullmatch(one):
                raise ValueError(
                    f"{one!r} is no origin such as https://ui.example or http://localhost:3000; name each one"
                )
        return value

    @field_validator("workflows", "auth", "oidc_audience", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_levels", mode="before")
    @classmethod
    def _read_levels(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        levels = {name.strip(): level.strip().lower() for name, _, level in pairs}
        if not all(levels) or not set(levels.values()) <= set(get_args(Level)):
            raise ValueError(
                'must be a list such as "mine=debug,httpx=info", of the levels debug, info, warning and error'
            )
        return levels

    @field_validator("default_product_workflows", mode="before")
    @classmethod
    def _read_list(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            names = json.loads(value)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError('must be a JSON list of names of workflows, such as ["modify_note"]')
        return tuple(dict.fromkeys(name.strip() for name in names))

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        scheme, _, rest = value.get_secret_value().partition("://")
        urls = split_hosts(f"postgresql+asyncpg://{rest}")
        is_complete = len(urls) == 1 or all(_HOST.fullmatch(host_of(url)) for url in urls)
        is_complete = is_complete and all(has_one_login(url) and has_usable_port(url) for url in urls)
        if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"} or not rest or not is_complete:
            raise ValueError(
                "must look like postgresql+asyncpg://user:password@host:5432/database, with several hosts"
                " …@first:5432,second:5432/database; an @ in the password is written %40"
            )
        options = parse_qs(options_of(urls[0]), keep_blank_values=True)
        for option in options:
            if option not in _DATABASE_OPTIONS:
                instead = _SET_OTHERWISE.get(option, f"the options are {', '.join(sorted(_DATABASE_OPTIONS))}")
                raise ValueError(f"its option {option!r} cannot be used: {instead}")
        for option in _FILES & options.keys():
            if not Path(options[option][-1]).is_file():
                raise ValueError(f"its option {option!r} names no file: {options[option][-1]}")
        for wanted in options.get("target_session_attrs", []):
            if wanted not in _WRITABLE:
                raise ValueError(f"target_session_attrs must be one of {', '.join(_WRITABLE)}: the engine writes")
        return SecretStr(f"postgresql+asyncpg://{rest}")

    @field_validator("amqp_url")
    @classmethod
    def _check_amqp_url(cls, value: SecretStr) -> SecretStr:
        urls = split_hosts(value.get_secret_value())
        is_complete = len(urls) == 1 or all(_HOST.fullmatch(host_of(url)) for url in urls)
        is_complete = is_complete and all(map(has_one_login, urls))
        try:
            for url in urls:
                AmqpDsn(url)
        except ValidationError:
            is_complete = False
        if not is_complete:
            raise ValueError(
                "must look like amqp://user:password@host:5672/vhost (or amqps://…), with several hosts"
                " …@first:5672,second:5672/vhost; an @ in the password is written %40"
            )
        return value


def _show(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(map(_show, value))
    written = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if "://" in written:
        return hide_password(written)
    return "…" if isinstance(value, SecretStr) else written


def load_settings(*, needs_broker: bool = True) -> Settings:
    """Read the settings.

    Args:
        needs_broker: whether ``ORCHESTRATOR_AMQP_URL`` must be set; otherwise the URL leads nowhere.

    Raises:
        ConfigurationError: a variable is missing or invalid; the text names each.
    """
    # The errors of authors' models are printed and logged: without a link to pydantic's documentation for each field.
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")
    try:
        return Settings() if needs_broker else Settings(amqp_url=_NO_BROKER)
    except ValidationError as error:
        wrong = []
        for problem in error.errors(include_input=False, include_url=False):
            if not problem["loc"]:
                wrong.append(format_problem(problem))
                continue
            name = variable_of(str(problem["loc"][0]))
            text = _LOOKS.get(name, "") if problem["type"] == "string_pattern_mismatch" else format_problem(problem)
            wrong.append(f"{name} is not set" if problem["type"] == "missing" else f"{name}: {text}")
        hint = " ('scripts/services env' prints the two server URLs)" if "is not set" in "".join(wrong) else ""
        wrong += [f"no setting is called {one}" for one in list_misspelt()]
        raise ConfigurationError("wrong configuration: " + "; ".join(wrong) + hint) from None
    except (OSError, ValueError) as error:  # of the file: unreadable, or not UTF-8
        raise ConfigurationError(f"wrong configuration: .env cannot be read: {format_message(error)}") from error


def list_misspelt() -> list[str]:
    """Return the variables of the environment and ``.env`` that look like settings and are none, with what may be meant."""
    known = {variable_of(name) for name in Settings.model_fields} | _NOT_SETTINGS
    file = Path(".env")
    given = {name.upper() for name in (*os.environ, *_IN_FILE.findall(file.read_text() if file.is_file() else ""))}
    unknown = sorted(name for name in given - known if name.startswith(_PREFIX) and not name.startswith(_OF_SERVICES))
    # Without what they all begin with, or everything would look alike.
    meant = {one.removeprefix(_PREFIX): one for one in known}
    found = {name: difflib.get_close_matches(name.removeprefix(_PREFIX), meant, n=1) for name in unknown}
    return [name + "".join(f" (is {meant[one]} meant?)" for one in close) for name, close in found.items()]


def variable_of(field: str) -> str:
    """Return the environment variable of a setting, by the name of its field."""
    # An error in a setting that has an alias is reported under the alias, which is the field's name in capitals.
    setting = Settings.model_fields.get(field.lower())
    alias = None if setting is None else setting.validation_alias
    return alias if isinstance(alias, str) else f"ORCHESTRATOR_{field}".upper()
