"""A database whose administrator has made another isolation level the default."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import MakeInstallation


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_programs_work_whatever_isolation_level_is_the_default(installations: MakeInstallation, level: str) -> None:
    """Many processes at once end, each step once, and no message becomes a dead letter."""
    engine = installations()
    name = urlsplit(engine.database_url).path.removeprefix("/")
    engine.write(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
    try:
        for program in [engine.coordinator(), engine.consumer(), engine.consumer()]:
            program.ready()
        engine.client.listen()
        started = [engine.start("chain") for _ in range(20)]
        for process_id in started:
            engine.wait_for(process_id, "completed")
            assert len(engine.effects(process_id)) == 5
        assert engine.client.dead_letters() == []
        assert "message kept" not in engine.logs()
        engine.kill_all()
    finally:
        engine.write(f"ALTER DATABASE {name} RESET default_transaction_isolation")
