"""What the pages of /ui show in tests: a little of everything, with hostile texts in every place that takes some."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest

from orchestrator.db.session import Database
from orchestrator.messages import DeadLetter
from orchestrator.operations.dead_letters import keep
from tests.integration import api_flows
from tests.integration.api_client import open_api
from tests.integration.subscription_rows import Rows
from tests.unit.form_pages import Browser as Seen

EVIL = "<img src=x onerror=alert(1)><b hx-get=/ui hx-trigger=load>\"'"


@dataclass(frozen=True)
class World:
    """Ids of what there is."""

    product: UUID
    node: UUID
    port: UUID
    letter: UUID
    schedule: UUID


async def make_world(database: Database, monkeypatch: pytest.MonkeyPatch) -> World:
    """Write two subscriptions of which one uses the other, processes, a schedule and a dead letter."""
    await api_flows.register(database, monkeypatch)
    rows = Rows(database.pool)
    product = await rows.product(EVIL, speed=EVIL)
    await database.pool.execute("UPDATE products SET description = $1", EVIL)
    await database.pool.execute("UPDATE workflows SET is_task = true WHERE name = 'greeting'")
    modify = await rows.workflow("modify_node", "MODIFY", product)
    await rows.workflow("terminate_node", "TERMINATE", product)
    await rows.workflow("create_node", "CREATE", product)
    await database.pool.execute("UPDATE workflows SET description = $1 WHERE name <> 'create_node'", EVIL)
    node = await rows.subscription(product, description=EVIL, customer=EVIL)
    await database.pool.execute("UPDATE subscriptions SET note = $1", EVIL)
    process = await rows.process(modify, "failed", node, started_by=EVIL)
    port = await rows.subscription(product, description="port 1", insync=False, locked_by=process)
    inner = await rows.block(node, "Node", {"name": EVIL, "vlans": [1, 2]}, label=EVIL)
    await rows.root(node, inner, "node")
    outer = await rows.block(port, "Port", {"name": "ge-0/0/0"})
    await rows.root(port, outer, "port")
    await rows.inside(outer, inner, "node")
    await rows.change(node, 1, {"note": [None, EVIL]}, process=process, step=EVIL)
    await rows.change(node, 2, {"note": [EVIL, "x"]})
    await rows.process(await _find_workflow(database, "asking"), "suspended")
    await database.pool.execute("UPDATE processes SET step = 'Approve' WHERE workflow = 'asking'")
    async with database.transaction() as session:
        letter = await keep(session, _letter(), is_redelivered=False)
    assert letter is not None
    return World(product, node, port, letter, await _schedule(database))


async def _find_workflow(database: Database, name: str) -> UUID:
    return UUID(str(await database.pool.fetchval("SELECT workflow_id FROM workflows WHERE name = $1", name)))


def _letter() -> DeadLetter:
    return DeadLetter(
        letter_id=None,
        reason=EVIL,
        died_at=None,
        queue="orchestrator.commands",
        exchange="orchestrator.commands",
        routing_key="workflow.start",
        properties={"app_id": EVIL, "message_id": "order-1", "headers": {"tenant": EVIL}},
        packed_headers=None,
        body=b'{"workflow": "<img src=x onerror=alert(1)>"}',
        token_hash=None,
        digest=b"0" * 32,
    )


async def _schedule(database: Database) -> UUID:

    async with open_api(database) as api:
        made = await api.post("/api/schedules/", json={**api_flows.SCHEDULE, "name": EVIL, "note": EVIL})
    assert made.status_code == 201, made.text
    return UUID(made.json()["id"])


def require_inert(answer: httpx.Response) -> None:
    """Check that a page is sound and that nothing in it came from a text."""
    seen = Seen(answer.text)
    assert len(seen.ids) == len({*seen.ids}), "an id stands twice"
    for tag, found in seen.tags:
        assert tag not in {"img", "b"} or found == {}, found
        assert not [name for name in found if name.startswith("on") or name in {"style", "hx-on", "hx-trigger"}], found
    assert EVIL not in answer.text
