"""Bounds for how long the server keeps a session whose client has fallen silent, and with it the locks that others wait for.

A program that is silent can end nothing, and whoever waits for its locks cannot reach it. So each session bounds itself,
by settings that need no rights. A step is free of them: it may wait in its transaction for as long as it wants.
"""

from __future__ import annotations

from orchestrator.sockets import keepalive

IDLE_LIMIT = "idle_in_transaction_session_timeout"
"""The setting by which the server ends a session that is silent in a transaction."""

SHORTEST_PAUSE = 10.0
"""Seconds for which a transaction of the engine's may be silent, at least: it may publish a message before it commits."""

AUTHORS_PAUSE = 100.0
"""Seconds for which a request that calls user code may: longer than an authorization callback, a run predicate and a form
take together, one after the other, each of which has half a minute."""

_SHORT_LIMIT = "orchestrator.silent_after"

_SHORT = f"NULLIF(current_setting('{_SHORT_LIMIT}', true), '')"
_PRESENT = f"current_setting('{IDLE_LIMIT}')::interval"

LIMIT_FROM_HERE = (
    f"(SELECT set_config('{IDLE_LIMIT}', {_SHORT}, true) IS NOT NULL"
    f" WHERE {_PRESENT} = '0' OR {_PRESENT} > {_SHORT}::interval)"
)
"""SQL: makes the limit short for the rest of the transaction, in the statement after which only the commit is left. One that is
shorter already stays: a transaction that others wait for has its own."""

NO_LIMIT = f"set_config('{IDLE_LIMIT}', NULL, true)"
"""SQL: gives the rest of the transaction the limit that the server's administrator has set, usually none: for steps."""

NO_LIMIT_FOR_SESSION = f"set_config('{IDLE_LIMIT}', NULL, false)"
"""SQL: the same for the rest of the session: for migrations, which may compute for long, and commit in between."""


def bound_silence(silent_after: float) -> dict[str, str]:
    """Return the settings of every session.

    The server's kernel asks the client's machine whether it is there. A proxy between may answer that, so a session that is
    silent in a transaction has a limit as well.
    """
    probes = keepalive(silent_after)
    return {
        IDLE_LIMIT: _milliseconds(max(silent_after, SHORTEST_PAUSE)),
        _SHORT_LIMIT: _milliseconds(silent_after),
        "tcp_keepalives_idle": str(probes.idle),
        "tcp_keepalives_interval": str(probes.interval),
        "tcp_keepalives_count": str(probes.count),
    }


def bound_authors(silent_after: float) -> dict[str, str]:
    """Return what is different for sessions of requests that call user code."""
    return {IDLE_LIMIT: _milliseconds(max(silent_after, AUTHORS_PAUSE))}


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"
