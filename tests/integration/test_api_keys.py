"""API keys: shown once, stored as a hash, found by one look-up, revoked at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import cast

import pytest

from orchestrator.authorization import Role
from orchestrator.db.api_keys import find_key as look_up
from orchestrator.db.session import Database, DriverPool
from orchestrator.errors import ConflictError, InvalidInputError, NotFoundError
from orchestrator.services.api_keys import MadeKey, create_key, find_key, is_valid, list_keys, revoke_key
from tests.integration.api_client import open_api
from tests.integration.cli_servers import project
from tests.integration.waiting import until

NO_BROKER = "amqp://u:hidden@127.0.0.1:1/x"


async def make(database: Database, name: str = "crm", days: int | None = None) -> MadeKey:
    async with database.transaction() as session:
        return await create_key(session, name, Role.START, "ann", days)


async def test_a_key_opens_what_it_was_made_for_and_only_its_hash_is_stored(database: Database) -> None:
    made = await make(database, days=1)
    found = await find_key(database, made.secret)
    assert found is not None
    assert (found.key_id, found.name, found.role, found.expires_at) == (made.key_id, "crm", "start", made.expires_at)
    row = await database.pool.fetchrow("SELECT k::text AS everything, digest FROM api_keys k")
    assert row is not None
    assert made.secret.rpartition("_")[2] not in row["everything"]
    assert row["digest"] == sha256(made.secret.encode()).digest()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda key: key[:-1] + ("1" if key[-1] != "1" else "2"),
        lambda key: key.replace("orch_", "orch_0", 1),
        lambda key: key.upper(),
        lambda key: key + "\n",
        lambda key: f" {key}",
        lambda key: key + "\0",
        lambda _: "",
        lambda _: "orch_",
        lambda _: "\ud800",
        lambda key: key * 1000,
    ],
)
async def test_what_is_not_exactly_the_key_opens_nothing(database: Database, wrong: Callable[[str], str]) -> None:
    made = await make(database)
    assert await find_key(database, wrong(made.secret)) is None


async def test_a_revoked_or_expired_key_opens_nothing_at_once(database: Database) -> None:
    revoked, expired = await make(database), await make(database, days=1)
    for key in (revoked, expired):
        assert await find_key(database, key.secret)
        assert await is_valid(database, key.key_id)
    async with database.transaction() as session:
        assert await revoke_key(session, revoked.key_id, "bob") == "crm"
    await database.pool.execute("UPDATE api_keys SET expires_at = now() WHERE key_id = $1", expired.key_id)
    for key in (revoked, expired):
        assert await find_key(database, key.secret) is None
        assert not await is_valid(database, key.key_id)
    async with database.transaction() as session:
        listed = {one.key_id: one for one in await list_keys(session)}
    assert listed[revoked.key_id].revoked_by == "bob"
    assert [one.is_valid for one in listed.values()] == [False, False]


async def test_revoking_what_is_unknown_or_revoked_is_refused_with_the_reason(database: Database) -> None:
    made = await make(database)
    async with database.transaction() as session:
        await revoke_key(session, made.key_id, "bob")
        with pytest.raises(ConflictError, match="is revoked already"):
            await revoke_key(session, made.key_id, "bob")
        with pytest.raises(NotFoundError, match="there is no API key 'nope'"):
            await revoke_key(session, "nope", "bob")


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\0b", "n" * 201])
async def test_a_name_that_the_audit_trail_does_not_take_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InvalidInputError, match="1 to 200 printable characters"):
        await make(database, name)


async def test_that_a_key_was_used_is_written_at_most_every_few_minutes(database: Database) -> None:
    made = await make(database)
    version = "SELECT xmin::text FROM api_keys"
    before = await database.pool.fetchval(version)
    await find_key(database, made.secret)
    used = await database.pool.fetchval(version)
    assert used != before
    for _ in range(5):
        await find_key(database, made.secret)
    assert await database.pool.fetchval(version) == used
    await database.pool.execute("UPDATE api_keys SET last_used_at = now() - interval '6 minutes'")
    await find_key(database, made.secret)
    assert await database.pool.fetchval("SELECT last_used_at > now() - interval '1 minute' FROM api_keys")


async def add_ten_thousand(database: Database) -> None:
    await database.pool.execute(
        "INSERT INTO api_keys (key_id, digest, name, role, created_by)"
        " SELECT n::text, sha256(n::text::bytea), 'n', 'read', 'test' FROM generate_series(1, 10000) AS n"
    )
    await database.pool.execute("ANALYZE api_keys")


async def test_what_is_wrong_with_a_key_does_not_show_in_what_is_done(database: Database) -> None:
    """How long an answer takes tells nothing: whatever is wrong, the same one statement is sent, and no row comes back."""
    unknown, revoked, expired, other = [await make(database, days=1) for _ in range(4)]
    await database.pool.execute("DELETE FROM api_keys WHERE key_id = $1", unknown.key_id)
    await database.pool.execute("UPDATE api_keys SET revoked_at = now() WHERE key_id = $1", revoked.key_id)
    await database.pool.execute("UPDATE api_keys SET expires_at = now() WHERE key_id = $1", expired.key_id)
    wrong_secret = other.secret[:-1] + ("1" if other.secret[-1] != "1" else "2")
    sent: list[str] = []
    async with database.pool.acquire() as connection:
        connection.add_query_logger(lambda record: sent.append(record.query))
        for secret in (unknown.secret, revoked.secret, expired.secret, wrong_secret):
            assert await look_up(cast("DriverPool", connection), sha256(secret.encode()).digest()) is None
    # The driver says a moment later what it has sent.
    await until(lambda: len(sent) == 4, "the driver has said what it has sent")
    first, *others = sent
    assert others == [first] * 3


async def test_a_key_is_found_by_an_index_among_ten_thousand(database: Database) -> None:
    made = await make(database)
    await add_ten_thousand(database)
    digest = sha256(made.secret.encode()).digest()
    plan = await database.pool.fetch("EXPLAIN SELECT * FROM api_keys WHERE digest = $1", digest)
    assert "Index Scan using uq_api_keys_digest" in plan[0][0]
    assert await find_key(database, made.secret)


def test_the_command_line_shows_a_key_once(database_url: str, tmp_path: Path) -> None:
    cli = project(tmp_path, database_url, NO_BROKER)
    made = cli("api-keys", "create", "crm", "--role", "start", "--days", "90", "--user", "ann")
    secret = made.stdout.strip()
    assert re.fullmatch(r"orch_[0-9a-f]{12}_[0-9a-f]{64}", secret)
    assert "of 'crm' with the role start, expires " in made.stderr
    key_id = secret.split("_")[1]

    listed = cli("api-keys", "list")
    assert re.search(rf"{key_id} +valid +crm +start", listed.stdout)
    assert cli.json("api-keys", "list")[0]["created_by"] == "ann"
    assert cli("api-keys", "revoke", key_id, "--user", "bob").stdout == f"the key {key_id} of 'crm' is revoked\n"
    assert "revoked by bob" in cli("api-keys", "list").stdout
    assert "is revoked already" in cli("api-keys", "revoke", key_id, code=1).stderr

    created = cli.json("api-keys", "create", "monitor", "--days", "0")
    assert (created["role"], created["expires_at"]) == ("read", None)
    everything = cli("api-keys", "list", "--json").stdout + listed.stdout
    assert secret.split("_")[2] not in everything
    assert created["key"].split("_")[2] not in everything


async def test_a_key_is_made_listed_and_revoked_over_http_and_shown_once(database: Database) -> None:
    async with database.transaction() as session:
        admin = await create_key(session, "ann", Role.ADMIN, "root", None)
    async with open_api(database, auth="api-keys") as api:
        api.headers["authorization"] = f"Bearer {admin.secret}"
        made = await api.post("/api/api-keys", json={"name": "crm", "role": "operate", "days": 90})
        assert made.status_code == 201
        key = made.json()
        assert (key["name"], key["role"]) == ("crm", "operate")
        found = await find_key(database, key["key"])
        assert found is not None
        assert found.key_id == key["key_id"]

        crm = {"authorization": f"Bearer {key['key']}"}
        for method, path in (("GET", ""), ("POST", ""), ("DELETE", f"/{key['key_id']}")):
            body = {"name": "more", "role": "admin"} if method == "POST" else None
            assert (await api.request(method, f"/api/api-keys{path}", json=body, headers=crm)).status_code == 403

        listed = await api.get("/api/api-keys")
        assert [(one["name"], one["created_by"]) for one in listed.json()] == [("crm", "ann"), ("ann", "root")]
        assert (await api.delete(f"/api/api-keys/{key['key_id']}")).status_code == 204
        assert (await api.get("/api/processes", headers=crm)).status_code == 401
        assert (await api.delete(f"/api/api-keys/{key['key_id']}")).status_code == 409
        assert (await api.delete("/api/api-keys/nothing")).status_code == 404
        again = await api.get("/api/api-keys")
        assert again.json()[0]["revoked_by"] == "ann"
        for answer in (listed, again):
            assert key["key"].rpartition("_")[2] not in answer.text


async def test_a_request_for_a_key_that_is_refused_repeats_nothing(database: Database) -> None:
    """With its very request."""
    async with open_api(database) as api:
        for body in ({"secret": "CANARY-1"}, {"name": "CANARY-1" * 100}, {"name": "a", "role": "CANARY-1"}):
            answer = await api.post("/api/api-keys", json=body)
            assert answer.status_code == 422
            assert "CANARY-1" not in answer.text
        assert (await api.get("/api/api-keys")).json() == []
