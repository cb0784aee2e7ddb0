"""Explain a process to people at a terminal: with their clock, and with whatever workflows the program can load."""

from __future__ import annotations

import contextlib
from uuid import UUID

from orchestrator.cli.context import CliContext
from orchestrator.cli.render import when
from orchestrator.errors import DefinitionError
from orchestrator.operations.explain import explain_process
from orchestrator.operations.explanation import Explanation


async def explain_in_words(context: CliContext, process_id: UUID) -> Explanation:
    """Return why a process does not go on. Workflows that cannot be loaded only make it less precise."""
    with contextlib.suppress(DefinitionError):
        context.load_workflows()
    async with context.connection() as connection:
        return await explain_process(connection, process_id, when)
