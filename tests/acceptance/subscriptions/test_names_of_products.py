"""A product is named by its name, which people know, at every entry point: its id is another one in each database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from uuid import UUID

from tests.acceptance.subscriptions.network import Network
from tests.acceptance.waiting import until


def test_a_product_is_named_by_its_name_at_every_entry_point(network: Network) -> None:
    def created() -> set[UUID]:
        return {row[0] for row in network.query("SELECT process_id FROM processes WHERE workflow = 'create_node'")}

    before = created()
    product, node = {"product": "Node P"}, {"node_name": "ams-1"}
    network.start("create_node", product, node)
    network.command("start", "create_node", "--input", json.dumps(product), "--input", json.dumps(node))
    api = network.api()
    answer = api.call("POST", "/processes/create_node", json=[product, node])
    assert answer.status_code == HTTPStatus.CREATED, answer.text
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    schedule = {"name": "one node", "workflow_name": "create_node", "user_inputs": [product, node], "trigger": "date"}
    answer = api.call("POST", "/schedules/", json=schedule | {"trigger_kwargs": {"run_date": soon}})
    assert answer.status_code == HTTPStatus.CREATED, answer.text
    until(lambda: len(created() - before) == 4, "a message, a command, a request and a schedule have started one each")
    assert api.stop() == 0
    for process_id in created() - before:
        network.wait_for(process_id, "completed")
        assert network.state(process_id)["product"] == network.product("Node P")
