"""Show the numbers of a queue to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from orchestrator.operations.queues import is_unread

if TYPE_CHECKING:
    from orchestrator.broker.connection import QueueDepth


def depth_cells(depth: QueueDepth | None) -> tuple[Text, Text]:
    """Return a queue's numbers as cells of a table: a missing queue, or one with messages and no reader, is red."""
    if depth is None:
        return Text("missing", style="red"), Text("")
    return Text(str(depth.ready)), Text(str(depth.consumers), style="red" if is_unread(depth) else "")
