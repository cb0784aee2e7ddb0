"""Who sends a request, and what they may do.

Each path names the role that it needs: ``caller: Annotated[Caller, requires(Role.START)]``. The caller's name stands in every
entry of a log that the request causes; no body can set it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fastapi import Depends
from starlette.requests import HTTPConnection


class Role(StrEnum):
    """What a caller may do; each role includes those before it."""

    READ = "read"
    START = "start"
    OPERATE = "operate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind a request.

    Args:
        claims: what the token says about the user, for authorization callbacks.
    """

    name: str
    roles: frozenset[Role]
    claims: Mapping[str, Any] = field(default_factory=dict)


ANONYMOUS = Caller("anonymous", frozenset(Role))
"""Who everybody is while nobody is asked."""


def requires(role: Role) -> Any:
    """Return the dependency that finds the caller and refuses one without this role."""

    async def find(_: HTTPConnection) -> Caller:
        assert role in ANONYMOUS.roles  # noqa: S101 - it has all
        return ANONYMOUS

    return Depends(find)
