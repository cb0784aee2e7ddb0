"""Print the AsyncAPI document: ``orchestrator asyncapi``."""

from __future__ import annotations

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson
from orchestrator.operations.asyncapi import build_document


def asyncapi(as_json: AsJson = False) -> None:
    """Print the AsyncAPI 3 document of all messages: commands, queries, replies, callbacks, events.

    It is JSON in any case. Neither server is needed.

    Example: orchestrator asyncapi > asyncapi.json
    """
    del as_json

    async def body(context: CliContext) -> None:
        context.load_workflows()
        context.output.document(await build_document())

    execute(body, as_json=True)
