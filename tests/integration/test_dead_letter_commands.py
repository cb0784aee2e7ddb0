"""``orchestrator dead-letters …`` with a running coordinator."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from orchestrator.broker.topology import Exchanges
from tests.integration.cli_servers import project
from tests.integration.letter_bench import publish


def _is_read(queues: list[dict[str, Any]]) -> bool:
    return any(queue["name"] == "orchestrator.letters" and queue["consumers"] for queue in queues)


def test_an_operator_lists_shows_replays_and_discards_letters(tmp_path: Path, database_url: str, amqp_url: str) -> None:
    cli = project(tmp_path, database_url, amqp_url)
    assert cli("dead-letters", "list").stdout.strip() == "no dead letters"
    with cli.program("coordinator"):
        cli.until(lambda: _is_read(cli.json("topology", "show")["queues"]))
        for number in range(3):
            body = {"workflow": "greet", "inputs": [{"name": "ä"}, {"tone": "kind"}]}
            asyncio.run(
                publish(
                    amqp_url,
                    Exchanges.COMMANDS,
                    "workflow.start",
                    json.dumps(body).encode(),
                    message_id=f"order-{number}",
                    app_id="crm",
                    headers={"tenant": "north\x1b[31m"},
                )
            )
        cli.until(lambda: len(cli.json("dead-letters", "list")) == 3)
        assert cli.json("status")["dead_letters"] == 3
        assert "3 dead letters are open" in cli("status").stdout
        # The workflow is not registered: that is the cause, which is fixed now.
        letters = {one["message_id"]: one for one in cli.json("dead-letters", "list", "--workflow", "greet")}
        assert sorted(letters) == ["order-0", "order-1", "order-2"]
        first = letters["order-0"]
        assert (first["app_id"], first["workflow"]) == ("crm", "greet")
        assert "NotFoundError" in first["reason"]
        assert "order-0" in cli("dead-letters", "show", first["id"][:13]).stdout
        shown = cli.json("dead-letters", "show", first["id"])
        assert (shown["body"]["workflow"], shown["headers"]) == ("greet", {"tenant": "north\x1b[31m"})
        assert "\x1b" not in cli("dead-letters", "show", first["id"]).stdout

        cli("db", "migrate-workflows", "--message", "register")
        cli("db", "upgrade")
        assert cli.json("dead-letters", "replay", first["id"], "--user", "ana")["done"][0]["closed_by"] == "ana"
        cli.until(lambda: len(cli.json("list")) == 1)
        refused = cli.json("dead-letters", "replay", first["id"], letters["order-1"]["id"], code=1)
        assert [one["message_id"] for one in refused["done"]] == ["order-1"]
        assert "was replayed by ana" in refused["refused"][0]["detail"]
        cli.until(lambda: len(cli.json("list")) == 2)
        done = cli.json("dead-letters", "discard", "--all", "--workflow", "greet")["done"]
        assert [one["message_id"] for one in done] == ["order-2"]
    assert cli.json("dead-letters", "list") == []
    closed = cli.json("dead-letters", "list", "--closed")
    assert {one["message_id"]: one["outcome"] for one in closed} == {
        "order-0": "replayed",
        "order-1": "replayed",
        "order-2": "discarded",
    }
    cli("dead-letters", "discard", code=2)
    cli("dead-letters", "show", "00000000", code=1)
