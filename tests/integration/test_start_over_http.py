"""What the API sends the coordinators once a start is stored."""

from __future__ import annotations

import httpx
import pytest

from orchestrator.broker.topology import Queues
from orchestrator.db.session import Database
from orchestrator.messages import Advanced, MessageType, decode
from tests.integration import api_flows
from tests.integration.api_client import lend_app, make_context
from tests.integration.letter_bench import only


async def test_a_start_over_http_carries_its_command_so_that_no_coordinator_reads_rows_for_it(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api_flows.register(database, monkeypatch)
    context = make_context(database, amqp_url=amqp_url, queue_type="quorum")
    await context.publisher.open()
    with lend_app(context) as app:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api.example") as client:
            answer = await client.post("/api/processes/greeting", json=[{"name": "ana"}, {"tone": "kind"}])
            assert answer.status_code == 201, answer.text
            message = await only(amqp_url, Queues.RESULTS)
    await context.drain()
    await context.publisher.close()
    assert message.type == MessageType.STEP_RESULT
    advanced = decode(Advanced, message.body)
    assert str(advanced.process_id) == answer.json()["id"]
    assert advanced.next is not None
    assert advanced.announced == 0
