"""Read SQL text as far as the engine must know what it does."""

from __future__ import annotations

import re

_COMMENT = re.compile(r"/\*|--[^\n]*")
_IN_COMMENT = re.compile(r"/\*|\*/")


def without_comments(statement: str) -> str:
    """Return the statement without comments, up to its first string; in PostgreSQL block comments nest."""
    kept, position, depth = [], 0, 0
    while (found := (_IN_COMMENT if depth else _COMMENT).search(statement, position)) is not None:
        if not depth:
            kept += [statement[position : found.start()], " "]
        if found.group() == "/*":
            depth += 1
        elif depth:
            depth -= 1
        position = found.end()
    return "".join(kept if depth else [*kept, statement[position:]])
