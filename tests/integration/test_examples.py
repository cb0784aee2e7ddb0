"""The recipes in ``examples/recipes`` do on real servers what ``examples/README.md`` says."""

from __future__ import annotations

import ast
import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.documentation import REPOSITORY, Shell

RECIPES = REPOSITORY / "examples" / "recipes"
PROGRAMS = [
    "callback_with_pika",
    "count_racks",
    "follow_events",
    "input_from_database",
    "retry_policy",
    "start_and_reply",
]


class Recipes(Shell):
    """The checkout, with the environment of ``examples/README.md``."""

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {
            "ORCHESTRATOR_MIGRATIONS": str(RECIPES / "migrations"),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
        }

    @contextmanager
    def program(self, name: str) -> Iterator[subprocess.Popen[str]]:
        """One of the recipes that are programs, while the block runs."""
        with subprocess.Popen(
            [sys.executable, str(RECIPES / f"{name}.py")],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            try:
                yield program
            finally:
                program.kill()

    def wait_for(self, process_id: str, status: str) -> dict[str, Any]:
        """The process, as soon as it has this status."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.json("show", process_id)
            if found["status"] == status:
                return found
            time.sleep(0.2)
        raise AssertionError(found)


@pytest.fixture
def recipes(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Recipes]:
    """The recipes' database, and ``orchestrator dev``."""
    shell = Recipes(tmp_path, database_url, amqp_url, workflows="examples.recipes")
    shell.run("orchestrator", "db", "upgrade")
    with shell.dev():
        yield shell


class Device(socketserver.StreamRequestHandler):
    """A device that says its version to whoever connects."""

    def handle(self) -> None:
        self.wfile.write(b"SSH-2.0-router\r\n")


def test_a_recipe_has_forty_lines_at_most() -> None:
    """Docstrings, comments and blank lines not counted."""
    for name in PROGRAMS:
        source = (RECIPES / f"{name}.py").read_text()
        told: set[int] = set()
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                told |= set(range(node.lineno, (node.end_lineno or 0) + 1))
        lines = [
            line
            for number, line in enumerate(source.splitlines(), start=1)
            if line.strip() and not line.strip().startswith("#") and number not in told
        ]
        assert 13 <= len(lines) <= 40, f"{name}: {len(lines)}"


def a_step_is_tried_again_until_the_device_answers(recipes: Recipes) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Device, bind_and_activate=False) as device:
        device.server_bind()  # the port is taken, and nothing listens on it yet
        page = json.dumps({"host": "127.0.0.1", "port": device.server_address[1]})
        process_id = recipes.json("start", "read_version", "--input", page)["process_id"]
        recipes.wait_for(process_id, "waiting")
        device.server_activate()
        threading.Thread(target=device.serve_forever, daemon=True).start()
        found = recipes.wait_for(process_id, "completed")
        device.shutdown()
    tries = [one["status"] for one in found["log"] if one["name"] == "Read the version of the device"]
    assert tries[0] == "waiting"
    assert tries[-1] == "success"
    assert recipes.json("show", process_id, "--state")["state"]["version"] == "SSH-2.0-router"


def pika_answers_a_callback(recipes: Recipes) -> None:
    process_id = recipes.json("start", "measure_line")["process_id"]
    recipes.wait_for(process_id, "awaiting_callback")
    with recipes.program("callback_with_pika"):
        recipes.wait_for(process_id, "completed")
    assert recipes.json("show", process_id, "--state")["state"]["light"] == -7.5


def a_form_offers_what_the_database_has(recipes: Recipes) -> None:
    def offered(process_id: str) -> dict[str, str]:
        recipes.wait_for(process_id, "suspended")
        form = recipes.json("resume", process_id, code=1)["form"]
        (options,) = [one["options"] for one in form["$defs"].values() if "options" in one]
        return dict(options)

    first, second = (recipes.json("start", "place_router")["process_id"] for _ in range(2))
    assert offered(first) == {"ams": "ams: 1 free", "utr": "utr: 3 free"}
    recipes.json("resume", first, "--input", '{"site": "ams"}')
    recipes.wait_for(first, "completed")
    assert offered(second) == {"utr": "utr: 3 free"}


def a_task_counts(recipes: Recipes) -> None:
    process_id = recipes.json("start", "count_free_racks", "--wait", "--timeout", "60")["process_id"]
    assert recipes.json("show", process_id, "--state")["state"]["free_racks"] == 4


def a_start_by_message_is_answered_and_its_events_are_followed(recipes: Recipes) -> None:
    command = (sys.executable, str(RECIPES / "start_and_reply.py"), "order-4711", "count_free_racks")
    with recipes.program("follow_events") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "following\n"
        kind, _, body = recipes.run(*command).partition(" ")
        assert kind == "workflow.started"
        assert json.loads(body)["created"] is True
        again = json.loads(recipes.run(*command).partition(" ")[2])
        assert again == json.loads(body) | {"created": False}
        events: list[list[str]] = []
        while not events or "completed" not in events[-1][3]:
            events.append(follower.stdout.readline().split())
    assert {one[1] for one in events} == {again["process_id"]}
    assert [int(one[2]) for one in events] == list(range(1, len(events) + 1))
    assert events[-1][3] == "process.count_free_racks.completed"


def test_the_recipes_do_what_they_say(recipes: Recipes) -> None:
    """One after the other beside one coordinator and consumer, because starting these takes longer than all of them."""
    a_task_counts(recipes)
    a_step_is_tried_again_until_the_device_answers(recipes)
    pika_answers_a_callback(recipes)
    a_form_offers_what_the_database_has(recipes)
    a_start_by_message_is_answered_and_its_events_are_followed(recipes)
