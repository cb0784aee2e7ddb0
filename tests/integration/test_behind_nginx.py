"""The API behind nginx: with a prefix, stripped or not, with compression, and with little patience."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from servers.system import choose_ports
from websockets.asyncio.client import connect

from orchestrator.api import live
from orchestrator.api.routes import events
from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.live_api import LiveApi, Stream, live_api
from tests.integration.log_rows import Log
from tests.integration.waiting import until
from tests.servers import NO_CERTIFICATES

PUBLIC = "https://orch.example/noc"

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 100; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_proxied any;
    gzip_types *;
    server {{
        listen 127.0.0.1:{port};
        location /noc/ {{
            proxy_pass http://127.0.0.1:{upstream}{stripped};
        }}
        location /noc/api/events {{
            proxy_pass http://127.0.0.1:{upstream}{stripped_events};
            proxy_read_timeout 5s;
        }}
        location /noc/api/ws/ {{
            proxy_pass http://127.0.0.1:{upstream}{stripped_socket};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }}
    }}
}}
"""
"""``proxy_read_timeout`` is a minute by default; for streams it is shorter here, and so is the time between two comments."""


def find_nginx() -> str:
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None and os.geteuid() != 0:
        pytest.skip("nginx is not installed, and only root can install it: apt-get install nginx")
    assert found, "nginx is not installed: apt-get install nginx, or scripts/services up as root"
    return found


@asynccontextmanager
async def behind_nginx(upstream: int, folder: Path, *, is_stripped: bool) -> AsyncIterator[str]:
    """Run nginx in front of a port; provide its address."""
    (port,) = choose_ports(1)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder,
            port=port,
            upstream=upstream,
            stripped="/" if is_stripped else "",
            stripped_events="/api/events" if is_stripped else "",
            stripped_socket="/api/ws/" if is_stripped else "",
        )
    )
    log = folder / "nginx.log"
    with log.open("w") as written:
        command = [find_nginx(), "-e", "stderr", "-c", str(configuration)]
        program = await asyncio.create_subprocess_exec(*command, stderr=written)
    try:
        url = f"http://127.0.0.1:{port}"

        async def answers() -> bool:
            assert program.returncode is None, log.read_text()
            try:
                async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
                    return (await client.get(f"{url}/nothing")).status_code == 404
            except httpx.TransportError:
                return False

        await until(answers, "nginx serves")
        yield url
    finally:
        program.terminate()
        await program.wait()


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveApi]:
    monkeypatch.setattr(live, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(events, "PING_EVERY", 0.2)
    await api_flows.register(database, monkeypatch)
    async with live_api(database, public_url=PUBLIC) as made:
        yield made


@pytest.mark.parametrize("is_stripped", [True, False], ids=["stripped", "not stripped"])
async def test_everything_works_below_the_prefix_of_a_proxy(
    api: LiveApi, database: Database, tmp_path: Path, is_stripped: bool
) -> None:
    """Pages, links, streams and sockets; nothing is buffered, cut or redirected, compressed or not."""
    log = Log(database)
    async with (
        behind_nginx(api.port, tmp_path, is_stripped=is_stripped) as url,
        httpx.AsyncClient(timeout=60) as client,
    ):
        page = await client.get(f"{url}/noc/api/docs")
        assert "url: '/noc/api/openapi.json'" in page.text
        assert (await client.get(f"{url}/noc/api/docs/swagger-ui-bundle.js")).status_code == 200
        document = (await client.get(f"{url}/noc/api/openapi.json")).json()
        assert document["servers"] == [{"url": "/noc"}]
        started = await client.post(f"{url}/noc/api/processes/asking", json=[])
        assert started.headers["location"] == f"/noc/api/processes/{started.json()['id']}"
        shown = await client.get(f"{url}{started.headers['location']}")
        assert shown.status_code == 200
        tag = {"if-none-match": shown.headers["etag"]}
        assert (await client.get(f"{url}{started.headers['location']}", headers=tag)).status_code == 304
        slash = await client.get(f"{url}/noc/api/processes/")
        assert slash.status_code == 404
        for answer in (page, started, shown, slash):
            assert "http://" not in str(answer.headers) + answer.headers.get("location", "")

        process_id = await log.process()
        headers = {"accept-encoding": "gzip"}
        async with client.stream("GET", f"{url}/noc/api/events", headers=headers) as response:
            stream = Stream(response)
            reading = asyncio.create_task(stream.read())
            await stream.is_following()
            comments = len(stream.comments)
            for number in (1, 2, 3):
                await log.store(process_id, number)
                await stream.has(number)  # each before the next one is there
            # nginx ends what is silent for five seconds; the stream goes on over comments alone.
            await until(lambda: len(stream.comments) > comments + 30, "comments have come for six seconds")
            await log.store(process_id, 4)
            await stream.has(4)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

        async with connect(f"{url.replace('http', 'ws')}/noc/api/ws/events") as web_socket:
            await web_socket.send("__ping__")
            assert await asyncio.wait_for(web_socket.recv(), 30) == "__pong__"
            await log.store(process_id, 5, kind="process")
            assert "invalidateCache" in str(await asyncio.wait_for(web_socket.recv(), 30))
    await until(lambda: api.context.live.readers == 0, "the readers behind the proxy are forgotten")
