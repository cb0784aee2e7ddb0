"""Commands about the keys of the HTTP API: ``orchestrator api-keys …``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text

from orchestrator.authorization import Role
from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson, User, check_text, user_name
from orchestrator.cli.output import clean
from orchestrator.cli.render import fields_of
from orchestrator.db.api_keys import StoredKey
from orchestrator.services import api_keys

DEFAULT_DAYS = 365


def create(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Who acts with it: the name in the audit trail.", callback=check_text),
    ],
    role: Annotated[
        Role,
        typer.Option("--role", metavar="ROLE", help="read, start, operate or admin; each includes those before it."),
    ] = Role.READ,
    days: Annotated[
        int, typer.Option("--days", metavar="N", min=0, max=36500, help="After how many days it expires; 0 for never.")
    ] = DEFAULT_DAYS,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is printed this once: only its hash is stored.

    Example: orchestrator api-keys create crm --role start --days 90
    """

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            made = await api_keys.create_key(session, name, role, user, days or None)
        end = "never expires" if made.expires_at is None else f"expires {_format_time(made.expires_at)}"
        context.output.line(made.secret)
        context.output.complain(
            f"key {made.key_id} of '{clean(name)}' with the role {role.value}, {end}. Keep it now: it is not shown again"
        )
        document = {"key_id": made.key_id, "key": made.secret, "name": name, "role": role.value}
        context.output.document({**document, "expires_at": made.expires_at})

    execute(body, as_json=as_json)


def list_command(as_json: AsJson = False) -> None:
    """List the keys, the newest first, also those that are revoked or have expired."""

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            found = await api_keys.list_keys(session)
        context.output.document([fields_of(one) for one in found])
        context.output.table(
            ("id", "", "name", "role", "expires", "last used", "created by", "at"),
            [
                (
                    one.key_id,
                    _state(one),
                    clean(one.name),
                    one.role,
                    _format_time(one.expires_at),
                    _format_time(one.last_used_at),
                    clean(one.created_by),
                    _format_time(one.created_at),
                )
                for one in found
            ],
            empty="no keys: 'orchestrator api-keys create NAME' makes one",
        )

    execute(body, as_json=as_json)


def revoke(
    key_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="The key's id, the part between the underscores.", callback=check_text),
    ],
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Revoke a key. From then on every request with it is refused."""

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            name = await api_keys.revoke_key(session, key_id, user)
        context.output.line(f"the key {key_id} of '{clean(name)}' is revoked")
        context.output.document({"key_id": key_id, "name": name, "revoked_by": user})

    execute(body, as_json=as_json)


def _state(key: StoredKey) -> Text:
    if key.revoked_at is not None:
        return Text(f"revoked by {clean(key.revoked_by)}", style="red")
    return Text("valid", style="green") if key.is_valid else Text("expired", style="yellow")


def _format_time(time: datetime | None) -> str:
    return "never" if time is None else f"{time:%Y-%m-%d %H:%M}"
