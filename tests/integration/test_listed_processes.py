"""The list of processes on the command line: whose they are, and which ones an operator means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.db.session import Database
from tests.integration.cli_servers import Cli, project
from tests.integration.subscription_rows import Rows


@pytest.fixture
async def cli(database: Database, database_url: str, amqp_url: str, tmp_path: Path) -> Cli:
    return project(tmp_path, database_url, amqp_url)


async def test_processes_are_listed_with_customers_and_subscriptions_and_filtered_by_them(
    cli: Cli, database: Database
) -> None:
    rows = Rows(database.pool)
    product = await rows.product("Port")
    first = await rows.subscription(product, description="port ams-1 1/1", customer="Acme")
    second = await rows.subscription(product, description="port ams-2 1/1", customer="Beta")
    create, check = await rows.workflow("create_port", "CREATE"), await rows.workflow("check", "SYSTEM", is_task=True)
    made = {
        "old": await rows.process(create, "completed", first),
        "both": await rows.process(create, "failed", first, second),
        "task": await rows.process(check, "suspended"),
    }
    names = {str(process_id): name for name, process_id in made.items()}
    for number, name in enumerate(made):
        await database.pool.execute(
            "UPDATE processes SET started_at = now() - $2 * interval '1 hour', updated_at = now() - $2 * interval '1 hour',"
            " step = 'Ask', assignee = $3 WHERE process_id = $1",
            made[name],
            3 - number,
            "NOC" if name == "task" else "SYSTEM",
        )

    def listed(*options: str) -> list[str]:
        return [names[one["process_id"]] for one in cli.json("list", *options)]

    assert listed() == ["task", "both", "old"]
    for options, found in {
        ("--subscription", str(first)): ["both", "old"],
        ("--subscription", str(second)[:8].upper()): ["both"],
        ("--customer", "Acme"): ["both", "old"],
        ("--customer", "acme"): [],
        ("--customer", "Acme", "--status", "completed"): ["old"],
        ("--assignee", "NOC"): ["task"],
        ("--since", "150m"): ["task", "both"],
        ("--until", "150m"): ["old"],
        ("--workflow", "create_port", "--since", "150m"): ["both"],
        ("--task", "--step", "Ask"): ["task"],
        ("--limit", "1", "--skip", "1"): ["both"],
        ("--skip", "3"): [],
    }.items():
        assert listed(*options) == found, options
    document: list[dict[str, Any]] = cli.json("list", "--status", "failed")
    assert document[0]["subscriptions"] == [
        {"subscription_id": str(first), "description": "port ams-1 1/1", "customer_id": "Acme"},
        {"subscription_id": str(second), "description": "port ams-2 1/1", "customer_id": "Beta"},
    ]
    text = cli("list").stdout
    assert "Acme +1" in text
    assert "port ams-1 1/1 +1" in text
    assert "--limit and --skip show others" in cli("list", "--limit", "1", "--skip", "1").stdout
    assert "'xyz' is not the id of a subscription" in cli("list", "--subscription", "xyz", code=2).stderr
    assert "this would abort 1 of 1 processes" in cli("bulk", "abort", "--subscription", str(second), code=1).stderr
    assert "this would abort 1 of 1 processes" in cli("bulk", "abort", "--customer", "Acme", code=1).stderr
    assert "this would abort 1 of 1 processes" in cli("bulk", "abort", "--assignee", "NOC", code=1).stderr
