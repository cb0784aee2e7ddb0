"""The keys of the API: list, make and revoke them."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.problems import Responses
from orchestrator.authorization import MAX_USER
from orchestrator.services import api_keys
from orchestrator.text import NO_NULL

router = Router(prefix="/api-keys", tags=["access"])

Admin = Annotated[Caller, requires(Role.ADMIN)]

_REVOKED: Final[Responses] = {
    404: {"description": "There is no such key."},
    409: {"description": "It is revoked already."},
}


class ApiKey(BaseModel):
    """An API key. The secret is stored nowhere."""

    key_id: str = Field(description="The part of the key between the underscores.", examples=["0a1b2c3d4e5f"])
    name: str = Field(description="Who acts with it.", examples=["crm"])
    role: Role
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    is_valid: bool


class NewApiKey(BaseModel):
    """Who is to act with a key, and what it opens."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=MAX_USER, description="The name in the audit trail.", examples=["crm"])
    role: Role = Field(Role.READ, description="Each role includes those before it: read, start, operate, admin.")
    days: int | None = Field(365, ge=1, le=36500, description="After how many days it expires; null for never.")


class MadeApiKey(BaseModel):
    """A new key. It is shown in this answer only."""

    key_id: str = Field(examples=["0a1b2c3d4e5f"])
    key: str = Field(description="What is sent as `Authorization: Bearer …`.", examples=["orch_0a1b2c3d4e5f_…"])
    name: str
    role: Role
    expires_at: datetime | None


@router.get("", operation_id="list_api_keys")
async def list_api_keys(context: Context, caller: Admin) -> list[ApiKey]:
    """List the keys, the newest first, also those that are revoked or have expired."""
    del caller
    async with context.transaction() as session:
        found = await api_keys.list_keys(session)
    return [ApiKey.model_validate(one, from_attributes=True) for one in found]


@router.post("", operation_id="create_api_key", status_code=HTTPStatus.CREATED)
async def create_api_key(context: Context, caller: Admin, wanted: NewApiKey) -> MadeApiKey:
    """Make a key. The answer is the only place where it can be read: its hash is stored."""
    async with context.transaction() as session:
        made = await api_keys.create_key(session, wanted.name, wanted.role, caller.name, wanted.days)
    return MadeApiKey(
        key_id=made.key_id, key=made.secret, name=wanted.name, role=wanted.role, expires_at=made.expires_at
    )


@router.delete("/{key_id}", operation_id="revoke_api_key", status_code=HTTPStatus.NO_CONTENT, responses=_REVOKED)
async def revoke_api_key(
    context: Context,
    caller: Admin,
    key_id: Annotated[str, Path(description="The key's id.", max_length=100, pattern=NO_NULL)],
) -> None:
    """Revoke a key. From then on every request with it is refused, and its streams end; it stays in the list."""
    async with context.transaction() as session:
        await api_keys.revoke_key(session, key_id, caller.name)
