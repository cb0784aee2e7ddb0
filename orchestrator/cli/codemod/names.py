"""Look up where a name of orchestrator-core is here, and what to do about one that is not."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from orchestrator.cli.ported_names import MOVED, NOT_OFFERED, PACKAGES_NOT_OFFERED, PREFIX

ROOT: Final = "orchestrator"
_SAME: Final = ("orchestrator.db.models", "orchestrator.db")
"""The first has the same names as the second."""

_NEEDS_SESSION: Final = re.compile(r"\bsession[.,)]")


def normalise(dotted: str) -> str:
    """Return a name as versions before 5 had it, with the tables where most write them."""
    plain = dotted
    if plain == PREFIX or plain.startswith(f"{PREFIX}."):
        plain = ROOT + plain.removeprefix(PREFIX)
    old, new = _SAME
    return new + plain.removeprefix(old) if plain.startswith(f"{old}.") else plain


def resolve(dotted: str) -> str | None:
    """Return the dotted name under which something of orchestrator-core can be imported here; ``None`` if it cannot."""
    plain = normalise(dotted)
    moved = MOVED.get(_as_listed(plain))
    if moved is not None:
        return moved.replace(":", ".")
    return plain if is_here(plain) else None


def resolve_module(dotted: str) -> str | None:
    """Return the name under which a module of orchestrator-core can be imported here; ``None`` if it cannot."""
    plain = normalise(dotted)
    return plain if _is_module(plain) else None


def advise(dotted: str) -> str:
    """Return what to do about a name that cannot be resolved."""
    plain = normalise(dotted)
    found = NOT_OFFERED.get(_as_listed(plain))
    packages = (PACKAGES_NOT_OFFERED[one] for one in _packages(plain) if one in PACKAGES_NOT_OFFERED)
    return found or next(packages, "there is nothing that takes its place")


def is_in_module(dotted: str) -> bool:
    """Return whether a dotted name says of a module of this package what it would have in it."""
    module, _, name = normalise(dotted).rpartition(".")
    return bool(name) and module.startswith(f"{ROOT}.") and _is_module(module)


@cache
def takes_session(dotted: str) -> bool:
    """Return whether something of this package is a function whose first parameter is the session."""
    found = find(dotted) if dotted.partition(".")[0] == ROOT else None
    if not inspect.isfunction(found):
        return False
    return next(iter(inspect.signature(found).parameters), None) == "session"


def asks_for_session(dotted: str) -> bool:
    """Return whether what takes the place of a name that is not offered needs the session."""
    return _NEEDS_SESSION.search(NOT_OFFERED.get(_as_listed(normalise(dotted)), "")) is not None


def lacks_column(table: str, name: str) -> bool:
    """Return whether a name stands for one of the engine's tables, and this has no such column."""
    found = find(table) if table.startswith(f"{ROOT}.db.tables.") else None
    return inspect.isclass(found) and not hasattr(found, name)


@cache
def is_here(dotted: str) -> bool:
    """Return whether a module, or the attribute of a module, has this name in this package."""
    module, _, name = dotted.rpartition(".")
    return _is_module(dotted) or bool(module and _is_module(module) and hasattr(importlib.import_module(module), name))


@cache
def find(dotted: str) -> Any:
    """Return the module, or the attribute of a module, that has this name in this package; ``None`` if nothing has."""
    if _is_module(dotted):
        return importlib.import_module(dotted)
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name, None) if module and _is_module(module) else None


def _as_listed(dotted: str) -> str:
    module, _, name = dotted.rpartition(".")
    return f"{module}:{name}"


def _packages(dotted: str) -> Iterator[str]:
    parts = dotted.split(".")
    for length in range(len(parts), 1, -1):
        yield ".".join(parts[:length])


def _is_module(dotted: str) -> bool:
    try:
        return importlib.util.find_spec(dotted) is not None
    except ModuleNotFoundError:  # a parent of it is not there, or no package
        return False
