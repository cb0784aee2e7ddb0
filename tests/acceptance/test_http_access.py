"""Who may use the API as a program: keys, an issuer on the network, and nobody from elsewhere without either. B38."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from threading import Thread
from uuid import UUID

import uvicorn
from websockets import Subprotocol
from websockets.sync.client import connect

from tests.acceptance.installation import Installation
from tests.oidc_issuer import AUDIENCE, OTHER_RSA_KEY, Issuer, claims_of, sign


def test_an_api_without_authentication_refuses_to_listen_beyond_its_machine(engine: Installation) -> None:
    for more in ((), ("--workers", "2")):
        refused = engine.command("api", "--host", "0.0.0.0", "--port", "0", *more, exit_code=1)  # noqa: S104 - refused for it
        assert "would let everybody do everything: set ORCHESTRATOR_AUTH" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_program_is_known_by_its_key_which_is_in_no_log(engine: Installation) -> None:
    """B38: its name stands in the log of the process; revoking the key counts at once."""
    key = engine.command("api-keys", "create", "crm", "--role", "start").stdout.strip()
    api = engine.api(ORCHESTRATOR_AUTH="api-keys", ORCHESTRATOR_LOG_LEVEL="debug")
    credentials = {"authorization": f"Bearer {key}"}
    assert api.call("POST", "/processes/one_step", json=[]).status_code == 401
    started = api.call("POST", "/processes/one_step", json=[], headers=credentials)
    assert started.status_code == 201, started.text
    process_id = UUID(started.json()["id"])
    engine.wait_for(process_id, "completed")
    assert '"crm"' in engine.command("show", str(process_id), "--json").stdout
    assert api.call("PUT", f"/processes/{process_id}/abort", headers=credentials).status_code == 403
    for flood in ({"authorization": f"Bearer {key}{'a' * 65_536}"}, {f"x-{n}": "a" * 1000 for n in range(90)}):
        answer = api.call("POST", "/processes/one_step", json=[], headers=flood)
        assert 400 <= answer.status_code < 500
    offered = [Subprotocol("base64.bearer.token"), Subprotocol(key)]
    with connect(f"{api.url.replace('http', 'ws')}/api/ws/events", subprotocols=offered) as web_socket:
        assert web_socket.subprotocol == "base64.bearer.token"
    engine.command("api-keys", "revoke", key.split("_")[1])
    assert api.call("POST", "/processes/one_step", json=[], headers=credentials).status_code == 401
    assert api.call("GET", "/health/live").status_code == 200
    assert key.split("_")[2] not in engine.logs()
    assert api.stop() == 0


@contextlib.contextmanager
def issuer_on_the_network() -> Iterator[Issuer]:
    """An OIDC issuer that listens, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        issuer = Issuer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(issuer, lifespan="off", log_config=None))
        thread = Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield issuer
        finally:
            server.should_exit = True
            thread.join(30)


def test_a_person_signs_in_at_an_issuer_whose_end_signs_nobody_out(engine: Installation) -> None:
    """B38: keys are fetched over the network, and known ones outlive the issuer."""
    with issuer_on_the_network() as issuer:
        api = engine.api(
            ORCHESTRATOR_AUTH="oidc", ORCHESTRATOR_OIDC_ISSUER=issuer.issuer, ORCHESTRATOR_OIDC_AUDIENCE=AUDIENCE
        )
        token = sign(claims_of(iss=issuer.issuer))
        signed = {"authorization": f"Bearer {token}"}
        process_id = api.call("POST", "/processes/one_step", json=[], headers=signed).json()["id"]
    engine.wait_for(UUID(process_id), "completed")
    assert api.call("POST", "/processes/one_step", json=[], headers=signed).status_code == 201
    foreign = {"authorization": f"Bearer {sign(claims_of(iss=issuer.issuer), OTHER_RSA_KEY, headers={'kid': 'new'})}"}
    assert api.call("POST", "/processes/one_step", json=[], headers=foreign).status_code == 401
    assert '"ann"' in engine.command("show", process_id, "--json").stdout
    assert token.rpartition(".")[2] not in engine.logs()
    assert api.stop() == 0
