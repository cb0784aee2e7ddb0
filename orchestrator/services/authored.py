"""Calling functions of authors that run on the doors rather than in steps: forms and run predicates.

Whatever such a function raises must reach who asked, in words, and must end there: the door serves everybody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from orchestrator.db.session import is_database_loss
from orchestrator.errors import DefinitionError, OrchestratorError

logger = structlog.get_logger(__name__)


@contextmanager
def calling(what: str) -> Iterator[None]:
    """Turn whatever an author's function raises into an error that says so; errors of the engine go through.

    Raises:
        DefinitionError: the function raised something; the log has the traceback.
    """
    try:
        yield
    except OrchestratorError:
        raise
    except (Exception, SystemExit) as error:
        # That our own database is away is nobody's defect: who asked waits until it is back.
        if is_database_loss(error):
            raise
        logger.exception("an author's function raised", what=what)
        raise DefinitionError(f"{what} raised {type(error).__name__}: {error}") from error
