"""Why no consumer has claimed a step, as people and programs read it."""

from __future__ import annotations

import importlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator import registry
from orchestrator.db.status import ConsumerSighting
from orchestrator.errors import DefinitionError
from orchestrator.operations import waiting
from orchestrator.operations.waiting import Wait, list_inabilities

NOW = datetime(2026, 11, 26, tzinfo=UTC)
RIGHT = ConsumerSighting("right:1", ("default",), 10, NOW, NOW, 2, 10, 0, True, 0, {"port": "aa"}, {})
WRONG = replace(RIGHT, name="wrong:1", knows={})
BROKEN = replace(WRONG, name="broken:1", broken={"port": "the module 'port' cannot be imported: No module named 'x'"})
OLD = replace(RIGHT, name="old:1", knows={"port": "bb"})
BUSY = replace(RIGHT, name="busy:1", running=10)


@pytest.mark.parametrize(
    ("consumers", "queue", "plans", "summary", "details", "stuck"),
    [
        ([], "default", (), "no consumer is running", [], True),
        ([replace(RIGHT, alive=False)], "default", (), "no consumer is running", [], True),
        (
            [RIGHT],
            "other",
            (),
            "no consumer reads the queue 'other': 'orchestrator consumer --queue other'",
            [],
            True,
        ),
        (
            [WRONG, BROKEN],
            "default",
            (),
            "no consumer of the queue 'default' can run it",
            [
                "wrong:1 reads this queue, but does not know 'port'",
                "broken:1 reads this queue, but cannot run 'port': the module 'port' cannot be imported: No module named 'x'",
            ],
            True,
        ),
        ([OLD], "default", ("aa",), "no consumer of", ["old:1 reads this queue, but has another plan of 'port'"], True),
        ([OLD], "default", ("aa", "bb"), "waits in the queue 'default' for its turn", [], False),
        (
            [replace(RIGHT, blocked_for=3)],
            "default",
            (),
            "waits in the queue 'default': every consumer that can run it is busy",
            ["right:1 reads this queue, but does not respond: its event loop is blocked"],
            False,
        ),
        ([OLD], "default", (), "waits in the queue 'default' for its turn", [], False),
        (
            [BUSY, WRONG],
            "default",
            (),
            "waits in the queue 'default': every consumer",
            [
                "busy:1 reads this queue, but runs 10 steps, at most 10",
                "wrong:1 reads this queue, but does not know 'port'",
            ],
            False,
        ),
        ([replace(RIGHT, knows=None)], "default", ("aa",), "waits in the queue 'default' for its turn", [], False),
        ([RIGHT], None, (), "this program does not know that step", [], False),
        ([WRONG], None, (), "no consumer of its queue can run it", ["wrong:1 does not know 'port'"], True),
        ([WRONG] * 7, "default", (), "no consumer of", [*["wrong:1 reads"] * 5, "and 2 more"], True),
    ],
)
def test_what_a_step_waits_for_is_explained(
    consumers: list[ConsumerSighting],
    queue: str | None,
    plans: tuple[str, ...],
    summary: str,
    details: list[str],
    stuck: bool,
) -> None:
    wait = Wait.of("port", queue, consumers, paused=False, plans=plans)
    assert wait.summary().startswith(summary)
    assert len(list(wait.details())) == len(details)
    assert all(line.startswith(part) for line, part in zip(wait.details(), details, strict=True))
    assert wait.is_stuck is stuck
    assert wait.document()["waits_for"] == wait.summary()


def test_while_the_engine_is_paused_no_consumer_is_blamed() -> None:
    wait = Wait.of("port", "default", [WRONG], paused=True)
    assert (wait.summary(), list(wait.details()), wait.is_stuck) == ("the engine is paused", [], False)


def test_what_consumers_cannot_run_of_their_queues_is_listed_before_anything_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queues = {"port": {"default"}, "node": {"default"}, "apart": {"other"}}
    monkeypatch.setattr(waiting, "step_queues_by_workflow", lambda: queues)
    dead = replace(WRONG, alive=False)
    assert list(list_inabilities([replace(RIGHT, knows={"port": "", "node": ""}), WRONG, dead])) == [
        "wrong:1 does not know 'node', 'port'"
    ]
    assert list(list_inabilities([replace(BROKEN, queues=("other",), knows={"apart": ""})])) == [
        f"broken:1 cannot run 'port': {BROKEN.broken['port']}"
    ]


def test_a_broken_module_is_imported_once_and_disables_its_own_workflows_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    registry.LazyWorkflowInstance("orchestrator.workflows.modify_note", "modify_note")
    broken = registry.LazyWorkflowInstance("there.is.no.such.module", "broken")
    found = registry.find_abilities()
    assert list(found.knows) == ["modify_note"]
    assert "No module named 'there'" in found.broken["broken"]

    imported: list[str] = []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    with pytest.raises(DefinitionError, match="No module named 'there'"):
        broken.plan()
    assert imported == []


class Odd:
    def __repr__(self) -> str:
        return "odd\0\ud800"


odd = Odd()


def test_what_is_reported_of_a_broken_workflow_can_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    registry.LazyWorkflowInstance(__name__, "odd")
    reason = registry.find_abilities().broken["odd"]
    assert "it is odd\\0?; decorate it" in reason
