"""Read how far a downgrade goes back, where Alembic has no answer: a number of revisions, and a merge on the way. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alembic.script import ScriptDirectory

from orchestrator.errors import ConfigurationError

_RELATIVE = re.compile(r"(?:(?P<branch>\w+)@)?-(?P<steps>[0-9]{1,6})")


def find_way_back(scripts: ScriptDirectory, heads: Sequence[str], revision: str) -> str:
    """Return the revision to go back to, as Alembic takes it.

    To undo a merge is to go back to one of those that it has joined; all of them stay in force.

    Args:
        heads: that the database has.
        revision: as it was written: ``project@-1``, or any other, which is returned as it is.

    Raises:
        ConfigurationError: the way back forks before it has come to its end.
    """
    found = _RELATIVE.fullmatch(revision)
    if found is None:
        return revision
    branch, steps = found["branch"], int(found["steps"])
    ends = [one for one in heads if branch is None or branch in _read(scripts, one)[1]]
    for step in range(1, steps + 1):
        if len(ends) != 1:
            raise _refuse(revision, f"the database has {' and '.join(sorted(ends)) or 'none'} there", ends)
        below, _ = _read(scripts, ends[0])
        if len(below) > 1:
            if step == steps:
                return min(below)
            raise _refuse(revision, f"on the way stands {ends[0]}, which joins {' and '.join(sorted(below))}", below)
        if not below:
            return revision
        ends = list(below)
    return revision


def _read(scripts: ScriptDirectory, revision: str) -> tuple[tuple[str, ...], set[str]]:
    """Return the revisions on which one stands, and the names of its branches."""
    script = scripts.get_revision(revision)
    down = () if script is None or script.down_revision is None else script.down_revision
    return ((down,) if isinstance(down, str) else tuple(down)), set() if script is None else set(script.branch_labels)


def _refuse(revision: str, why: str, ends: Sequence[str]) -> ConfigurationError:
    example = f", such as 'orchestrator db downgrade {min(ends)}'" if ends else ""
    return ConfigurationError(f"{revision!r} leaves open how to go back, because {why}: name the revision{example}")
