"""B23: models that change when there are subscriptions already, by the real commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.db.session import Database
from tests.integration.cli_servers import Cli, project
from tests.integration.test_migrating_models import MODELS, ROLES, migrate, subscribe


@pytest.fixture
def cli(database_url: str, amqp_url: str, tmp_path: Path) -> Cli:
    made = project(tmp_path, database_url, amqp_url)
    (tmp_path / "flows.py").write_text(MODELS)
    return made


def write_revision(cli: Cli, upgrade: str, downgrade: str) -> None:
    """A revision of the project's own, as people write it."""
    path = Path(cli.json("db", "revision", "-m", "own")["path"])
    text = path.read_text().replace("import op\n", "import op\nfrom orchestrator.db.registration import *\n", 1)
    path.write_text(text.replace("    pass", f"    {upgrade}", 1).replace("    pass", f"    {downgrade}", 1))


async def test_a_product_that_is_back_in_the_code_is_active_again(cli: Cli, database: Database) -> None:
    """But one that people have retired stays so."""
    migrate(cli, *ROLES)
    for product in ("Node P", "Node PE"):
        await subscribe(database, product, "Node", {"node_name": "ams"}, field="node", status="terminated")
    (cli.folder / "flows.py").write_text(MODELS.replace(', "Node PE": Node', ""))
    assert migrate(cli)["changed"] == ["the product Node PE: retired, because it has subscriptions"]
    status = "SELECT status FROM products ORDER BY name"
    assert [row["status"] for row in await database.pool.fetch(status)] == ["active", "not_in_code"]
    write_revision(cli, "retire_product(op.get_bind(), 'Node P')", "reinstate_product(op.get_bind(), 'Node P')")
    cli("db", "upgrade")
    assert [row["status"] for row in await database.pool.fetch(status)] == ["end_of_life", "not_in_code"]

    (cli.folder / "flows.py").write_text(MODELS)
    assert migrate(cli)["changed"] == ["the product Node PE: reinstated, because the code has it again"]
    assert [row["status"] for row in await database.pool.fetch(status)] == ["end_of_life", "active"]
    cli("db", "downgrade", "project@-1")
    assert [row["status"] for row in await database.pool.fetch(status)] == ["end_of_life", "not_in_code"]


async def test_the_way_back_is_refused_once_something_is_stored(cli: Cli, database: Database) -> None:
    """And says why: values are not deleted without anybody's word."""
    migrate(cli, *ROLES)
    (cli.folder / "flows.py").write_text(MODELS.replace("    ims_id", "    site_id: int | None = None\n    ims_id"))
    migrate(cli)
    await subscribe(database, "Node P", "Node", {"node_name": "ams", "site_id": 3}, field="node")
    told = cli("db", "downgrade", "project@-1", code=1, COLUMNS="1000").stderr
    assert "subscriptions hold values of the resource type 'site_id' (1): values='drop' deletes these" in told
    await database.pool.execute("UPDATE subscription_instances SET resources = resources - 'site_id'")
    cli("db", "downgrade", "project@-1")


async def test_a_value_that_has_become_mandatory_is_missed_until_it_is_filled_in(cli: Cli, database: Database) -> None:
    migrate(cli, *ROLES)
    await subscribe(database, "Node P", "Node", {"node_name": "ams"}, field="node")
    strict = MODELS.replace("    node_name: str\n", "    node_name: str\n    ims_id: int\n")
    (cli.folder / "flows.py").write_text(strict)
    shown = cli("db", "migrate-domain-models", code=1).stdout
    assert "ims_id of Node: NodeBlock needs a value, but there is none (1): fill_values(op.get_bind(), 'Node'" in shown
    write_revision(cli, "fill_values(op.get_bind(), 'Node', {'ims_id': 0})", "pass")
    cli("db", "upgrade")
    assert "nothing to do" in cli("db", "migrate-domain-models").stdout


async def test_values_that_a_stricter_class_cannot_load_are_listed_with_the_call_that_replaces_them(
    cli: Cli, database: Database
) -> None:
    """The error sends people to this command, which has said that there was nothing to do."""
    migrate(cli, *ROLES)
    subscriptions = [
        (await subscribe(database, "Node P", "Node", {"node_name": name}, field="node"))[0]
        for name in ("ams", "AMS", "AMS")
    ]
    strict = MODELS.replace("    node_name: str\n", '    node_name: Annotated[str, Field(pattern="^[a-z]+$")]\n')
    (cli.folder / "flows.py").write_text(strict)
    assert "migrate-domain-models" in _load(cli, str(subscriptions[1]), code=1)
    done = cli("db", "migrate-domain-models", code=1)
    call = "replace_value(op.get_bind(), 'Node', 'node_name', 'AMS', …)"
    assert "nothing to write: the database has the products and blocks of the code" in done.stdout
    assert (
        "the resource type node_name of Node: NodeBlock cannot load \"AMS\": String should match pattern '^[a-z]+$' (2):"
        f" {call}"
    ) in done.stdout
    assert "from orchestrator.db.registration import replace_value" in done.stdout
    write_revision(cli, call.replace("…", "'ams'"), "pass")
    cli("db", "upgrade")
    assert "nothing to do" in cli("db", "migrate-domain-models").stdout
    assert "node_name='ams'" in _load(cli, str(subscriptions[1]))
    history = cli("subscriptions", "history", str(subscriptions[1])).stdout
    assert "a migration has replaced a value of the resource type node_name" in history


def _load(cli: Cli, subscription: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, subscription],
        cwd=cli.folder,
        env=cli.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


RENAMED = MODELS.replace("    ports: list[", "    members: list[")
LOAD = """
import asyncio, sys
from orchestrator.db.session import Database
from orchestrator.settings import load_settings
import flows

async def load():
    database = Database(
        load_settings().database_url.get_secret_value(), pool_size=1, connect_timeout=60, application_name="test"
    )
    async with database.transaction() as session:
        print(await flows.Node.from_subscription(session, sys.argv[1]))
    await database.close()

asyncio.run(load())
"""


async def test_a_field_of_blocks_that_has_another_name_is_reported_and_fixed(cli: Cli, database: Database) -> None:
    """Renamed, one block instead of a list, and removed: the catalogue has no word of it, but nothing could be loaded."""
    migrate(cli, *ROLES)
    subscription, node = await subscribe(database, "Node P", "Node", {"node_name": "ams"}, field="node")
    for position in range(2):
        _, port = await subscribe(database, "Node P", "Port", {"speed": 10}, into=subscription)
        await database.pool.execute(
            "INSERT INTO subscription_instance_relations VALUES ($1, 'ports', $2, $3)", node, position, port
        )

    def loaded(code: int = 0) -> str:
        return _load(cli, str(subscription), code)

    assert "ports=[PortBlock(" in loaded()
    assert "nothing to do" in cli("db", "migrate-domain-models").stdout

    (cli.folder / "flows.py").write_text(
        MODELS.replace("    ports: list[PortBlockInactive]", "    ports: PortBlockInactive | None = None").replace(
            "    ports: list[PortBlock]", "    ports: PortBlock | None = None"
        )
    )
    assert "NodeBlock holds one block there" in loaded(code=1)
    (told,) = cli.json("db", "migrate-domain-models", code=1)["unloadable"]
    assert told.startswith("the field ports of Node: NodeBlock takes 1, but there are more (1)")

    (cli.folder / "flows.py").write_text(
        MODELS.replace("    ports: list[PortBlockInactive]\n", "").replace("    ports: list[PortBlock]\n", "")
    )
    written = cli.json("db", "migrate-domain-models", code=1)
    assert (written["path"], written["changed"]) == (None, [])
    assert written["left_out"] == ["the product block Port: subscriptions have 2, terminated ones included"]
    (told,) = written["unloadable"]
    assert "drop_block_field(op.get_bind(), 'ports', block='Node', values='drop')" in told

    (cli.folder / "flows.py").write_text(RENAMED)
    assert "node.ports: 2 blocks are stored, but NodeBlock has no such field of blocks" in loaded(code=1)
    shown = cli("db", "migrate-domain-models", code=1).stdout
    assert (
        "  • the field ports of Node: the code has no such field, but blocks stand there: Port (1):"
        " rename_block_field(op.get_bind(), 'ports', '…', block='Node') or drop_block_field("
    ) in shown
    write_revision(
        cli,
        "rename_block_field(op.get_bind(), 'ports', 'members', block='Node')",
        "rename_block_field(op.get_bind(), 'members', 'ports', block='Node')",
    )
    cli("db", "upgrade")
    assert "members=[PortBlock(" in loaded()
    assert "nothing to do" in cli("db", "migrate-domain-models").stdout
    cli("db", "downgrade", "project@-1")
    (cli.folder / "flows.py").write_text(MODELS)
    assert "ports=[PortBlock(" in loaded()
