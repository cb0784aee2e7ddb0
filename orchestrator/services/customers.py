"""Names of customers, from a function of the project: the engine knows their ids alone."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from orchestrator.diagnostics import locate
from orchestrator.engine.arguments import is_async
from orchestrator.errors import ConfigurationError, DefinitionError
from orchestrator.text import format_error, sanitise
from orchestrator.user_code import call_hook

logger = structlog.get_logger(__name__)

FindCustomers = Callable[[Sequence[str]], Mapping[str, object] | Awaitable[Mapping[str, object]]]
"""Returns for each id that it knows a name, or a name and a short code."""

WHAT: Final = "the function of ORCHESTRATOR_CUSTOMERS"
MAX_NAME: Final = 500
"""Characters of a name; the rest is cut."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as people know it; where nobody knows a name it is the id."""

    customer_id: str
    fullname: str
    shortcode: str


class Customers:
    """Finds the names of customers.

    Args:
        find: asks another system for many at once; ``None`` leaves the ids as they are.
    """

    def __init__(self, find: FindCustomers | None = None) -> None:
        self._find = find

    @classmethod
    def of(cls, path: str | None) -> Customers:
        """Import the function that a setting names as ``module:function``.

        Raises:
            ConfigurationError: there is none.
        """
        if path is None:
            return cls()
        module, _, name = path.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"ORCHESTRATOR_CUSTOMERS: {path!r} cannot be imported: {format_error(error)}{locate(error)}"
            ) from error
        if not callable(found):
            raise ConfigurationError(f"ORCHESTRATOR_CUSTOMERS: {path!r} is no function")
        return cls(found)

    async def find(self, customer_ids: Iterable[str]) -> dict[str, Customer]:
        """Return these customers by their ids; whoever is not known has the id for a name. A failure is logged only."""
        ids = list(dict.fromkeys(customer_ids))
        named: Mapping[str, object] = {}
        if self._find is not None and ids:
            try:
                answer = await call_hook(functools.partial(self._find, ids), WHAT, is_async=is_async(self._find))
                if not isinstance(answer, Mapping):
                    raise DefinitionError(f"{WHAT} returned {type(answer).__name__}, not names by ids")
                named = answer
            except DefinitionError as error:
                logger.warning("customers are shown by their ids", error=str(error))
        return {one: _name(one, named.get(one)) for one in ids}


def _name(customer_id: str, found: object) -> Customer:
    match found:
        case str():
            full, short = found, customer_id
        case (str() as full, str() as short):
            pass
        case _:
            full = short = customer_id
    return Customer(customer_id, sanitise(full)[:MAX_NAME], sanitise(short)[:MAX_NAME])
