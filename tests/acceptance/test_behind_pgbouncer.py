"""The database behind pgbouncer: with a session for each client everything works, otherwise programs say so and end.

pgbouncer's configuration is the one it has by default: it refuses settings that come with the login.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from servers.system import choose_ports

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.programs import measured
from tests.acceptance.test_schedules_that_fire import add, results, started_by
from tests.acceptance.waiting import until

DATABASE = "ORCHESTRATOR_DATABASE_URL"
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {servers}
"""


def find_pgbouncer() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None and os.geteuid() != 0:
        pytest.skip("pgbouncer is not installed, and only root can install it: apt-get install pgbouncer")
    assert found, "pgbouncer is not installed: apt-get install pgbouncer, or scripts/services up as root"
    return found


@contextlib.contextmanager
def behind_pgbouncer(database_url: str, folder: Path, mode: str, servers: int = 100) -> Iterator[str]:
    """Run pgbouncer before PostgreSQL; yield the URL by which it is reached."""
    parts = urlsplit(database_url)
    (own_port,) = choose_ports(1)
    configuration = folder / "pgbouncer.ini"
    text = CONFIGURATION.format(
        host=parts.hostname,
        port=parts.port,
        user=parts.username,
        password=parts.password,
        own_port=own_port,
        mode=mode,
        servers=servers,
    )
    # It reads its configuration before it gives up the rights of root, which it does not want to keep.
    configuration.write_text(text + ("user = nobody\n" if os.geteuid() == 0 else ""))
    log = folder / "pgbouncer.log"
    with log.open("w") as written, subprocess.Popen([find_pgbouncer(), str(configuration)], stderr=written) as program:
        try:

            def listens() -> bool:
                assert program.poll() is None, log.read_text()
                with socket.socket() as tried:
                    return tried.connect_ex(("127.0.0.1", own_port)) == 0

            until(listens, "pgbouncer listens")
            yield urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{own_port}"))
        finally:
            program.kill()


def test_programs_work_behind_pgbouncer_in_session_mode(installations: MakeInstallation, tmp_path: Path) -> None:
    """Steps with and without a session, the command line, pause, a schedule: what one connection sets stays."""
    engine = installations(**measured())
    with behind_pgbouncer(engine.database_url, tmp_path, "session") as url:
        engine.environment[DATABASE] = url
        for program in [engine.coordinator(), engine.consumer()]:
            program.ready()
        engine.client.listen()
        for process_id in [engine.start("chain") for _ in range(5)]:
            engine.wait_for(process_id, "completed")
        schedule_id = add(engine, "through pgbouncer")
        (process_id,) = until(lambda: started_by(engine, "through pgbouncer"), "the slot starts")
        engine.wait_for(process_id, "completed")
        assert results(engine, schedule_id) == ["started"]
        engine.command("pause", "--reason", "a test")
        assert engine.json("status")["status"] == "PAUSED"
        engine.command("unpause")
        engine.finish("chain")
        engine.kill_all()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_without_sessions_is_refused_in_one_line(
    installations: MakeInstallation, tmp_path: Path, mode: str
) -> None:
    engine = installations(**measured())
    with behind_pgbouncer(engine.database_url, tmp_path, mode) as url:
        for program in ("coordinator", "consumer"):
            outcome = engine.command(program, exit_code=1, **{DATABASE: url})
            [line] = outcome.stderr.splitlines()
            assert "leads to a connection pooler that does not keep sessions" in line
            assert "pool_mode = session" in line


def test_a_pooler_with_one_server_is_refused_in_one_line(installations: MakeInstallation, tmp_path: Path) -> None:
    engine = installations(**measured())
    with behind_pgbouncer(engine.database_url, tmp_path, "session", servers=1) as url:
        outcome = engine.command("coordinator", exit_code=1, **{DATABASE: url, "ORCHESTRATOR_CONNECT_TIMEOUT": "2"})
        [line] = outcome.stderr.splitlines()
        assert "gave no second connection within 2 s" in line
        assert "default_pool_size" in line
