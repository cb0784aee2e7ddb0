"""Commands that are gone from a queue although others still wait in it."""

from __future__ import annotations

import aio_pika

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

QUEUE = "orchestrator.steps.default"
PUBLISHED_AGAIN = "SELECT count(*) FROM processes WHERE published_at IS NOT NULL AND process_id = ANY($1)"


def _depth(engine: Installation) -> int:
    async def measure() -> int:
        async with await aio_pika.connect(engine.amqp_url) as connection:
            queue = await (await connection.channel()).declare_queue(QUEUE, passive=True)
            return queue.declaration_result.message_count or 0

    return engine.background.run(measure())


def _purge(engine: Installation) -> None:
    async def purge() -> None:
        async with await aio_pika.connect(engine.amqp_url) as connection:
            await (await (await connection.channel()).get_queue(QUEUE)).purge()

    engine.background.run(purge())


def test_commands_that_are_lost_behind_a_backlog_are_published_again_in_seconds_and_no_others(
    installations: MakeInstallation,
) -> None:
    """Three are purged, sixty wait behind one busy consumer: that they have messages before them explains nothing any more."""
    engine = installations()
    engine.coordinator().ready()
    lost = [engine.start("holds") for _ in range(3)]
    until(lambda: _depth(engine) == len(lost), "their commands wait")
    _purge(engine)
    others = [engine.start("holds") for _ in range(60)]
    engine.consumer("--concurrency", "1").ready()
    until(lambda: engine.value(PUBLISHED_AGAIN, lost) == len(lost), "the three are published again", seconds=60)
    assert engine.value(PUBLISHED_AGAIN, others) == 0
    assert _depth(engine) > len(others) / 2, "all of that while the others waited"

    for process_id in [*lost, *others]:
        engine.open_gate(f"hold-{process_id}")
    for process_id in [*lost, *others]:
        engine.wait_for(process_id, "completed")
    assert engine.value(PUBLISHED_AGAIN, others) == 0
