"""What the API program counts: few series, whatever clients send, and never on the public port."""

from __future__ import annotations

import random
import string

import httpx
import pytest

from orchestrator.api.app import create_app
from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.api_client import make_context


async def test_random_paths_and_methods_make_no_new_series(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a callback holds a token: no label has it, nor the id of a process."""
    await api_flows.register(database, monkeypatch)
    context = make_context(database)
    transport = httpx.ASGITransport(app=create_app(context))

    def count_series() -> int:
        return sum(len(one.samples) for one in context.metrics.registry.collect())

    async with httpx.AsyncClient(transport=transport, base_url="http://api.example") as api:
        assert (await api.get("/metrics")).status_code == 404
        assert (await api.get("/api/metrics")).status_code == 404
        await api.request("FOO", "/nothing")
        before = count_series()
        chance = random.Random(1)
        for _ in range(1000):
            word = "".join(chance.choices(string.ascii_uppercase, k=8))
            await api.request(word, f"/{word.lower()}", headers={"host": f"{word.lower()}.example"})
        assert count_series() == before

        await api.get("/api/settings/cache-names")
        await api.post("/api/processes/00000000-0000-0000-0000-000000000001/callback/CANARY-1", json={})

    def value(method: str, route: str, status: str) -> float | None:
        labels = {"method": method, "route": route, "status": status}
        return context.metrics.registry.get_sample_value("orchestrator_http_requests_total", labels)

    assert value("GET", "/settings/cache-names", "2xx") == 1
    assert value("POST", "/processes/{process_id}/callback/{token}", "4xx") == 1
    assert value("other", "none", "4xx") == 1001
    assert "CANARY-1" not in str(list(context.metrics.registry.collect()))
