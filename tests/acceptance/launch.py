"""Starts a program until the command line exists."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from consumers.program import run_consumer
from orchestrator.coordinator.program import run_coordinator
from orchestrator.db.migrations import upgrade
from orchestrator.db.session import Database
from orchestrator.errors import OrchestratorError
from orchestrator.log import configure_logging
from orchestrator.settings import load_settings


async def run(what: str) -> None:
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    if what == "db":
        database = Database(settings.database_url.get_secret_value(), pool_size=2, connect_timeout=5, application_name="x")
        await upgrade(database.engine, Path(settings.migrations))
        await database.close()
        return
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if what == "coordinator":
        await run_coordinator(settings, stopping)
    else:
        concurrency = int(sys.argv[sys.argv.index("--concurrency") + 1]) if "--concurrency" in sys.argv else 1000
        queues = [sys.argv[i + 1] for i, a in enumerate(sys.argv) if a == "--queue"]
        await run_consumer(settings, stopping, queues=queues, concurrency=concurrency)


if __name__ == "__main__":
    try:
        asyncio.run(run(sys.argv[1]))
    except* OrchestratorError as group:
        print(*(str(e) for e in group.exceptions), file=sys.stderr)
        sys.exit(1)
