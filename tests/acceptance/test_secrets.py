"""A callback token appears nowhere but in the hands of the action and of the external system."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

TABLES = (
    "processes",
    "process_steps",
    "process_commands",
    "callbacks",
    "consumers",
    "engine_settings",
    "engine_settings_log",
    "workflows",
)


def test_a_step_that_gives_its_token_away_fails_without_the_token(engine: Installation) -> None:
    """B36: returned, raised, in details and in a URL of somebody else's error text."""
    for name, kind in (("return", "InvalidResultError"), ("raise", "ProcessFailureError"), ("url", "RuntimeError")):
        process_id = engine.finish("leaks_its_token", {"name": name}, status="failed")
        token = engine.token(process_id)
        failure = engine.log(process_id, "Leak")[0].failure
        assert failure is not None
        assert failure["type"] == kind
        assert token not in repr(failure)
        if name == "raise":
            assert failure["message"] == "could not use [callback token]"
            assert failure["details"] == {"token": "[callback token]"}
        assert engine.state(process_id) == {"name": name}


def test_no_token_and_no_password_is_found_anywhere(engine: Installation) -> None:
    """Architecture: logs at debug level, tables, events, dead letters and the command line, after every way to answer."""
    good, failed, aborted, waiting = (engine.start("calls_out") for _ in range(4))
    for process_id in (good, failed, aborted, waiting):
        engine.open_gate(f"order-{process_id}")
        engine.wait_for(process_id, "awaiting_callback")
    engine.answer(engine.token(good), {"ok": True})
    engine.answer(engine.token(good), {"ok": "twice"})
    engine.answer(engine.token(failed), {"error": "no"}, kind="failed")
    engine.answer(engine.token(waiting), {"percent": 5}, kind="progress")
    engine.abort(aborted)
    engine.answer(engine.token(aborted), {"ok": "late"})
    engine.wait_for(good, "completed")
    engine.wait_for(failed, "failed")
    until(lambda: any(b'"late"' in one.raw for one in engine.client.dead_letters()), "the late answer is refused")

    secrets = {token for file in engine.lab.glob("tokens-*") for token in file.read_text().split()}
    assert len(secrets) >= 4
    places = {"logs": engine.logs()}
    for table in TABLES:
        places[table] = "\n".join(
            str(row[0]) for row in engine.query(f"SELECT row_to_json({table})::text FROM {table}")
        )
    assert str(good) in places["processes"]
    assert '"status":"used"' in places["callbacks"]
    places["events"] = "\n".join(f"{one.key} {one.headers} {one.raw!r}" for one in engine.client.events)
    places["dead letters"] = "\n".join(repr(one) for one in engine.client.dead)
    for process_id in (good, waiting):
        places[f"show {process_id}"] = engine.command("show", str(process_id), "--state", "--json").stdout
    places["show to people"] = engine.command("show", str(failed), "--state", "--traceback").stdout
    places["list"] = engine.command("list", "--json").stdout
    passwords = {urlsplit(url).password for url in (engine.database_url, engine.amqp_url)}
    for secret in secrets | passwords:
        assert secret
        assert [place for place, text in places.items() if secret in text] == []
    engine.abort(waiting)
    engine.abort(failed)
