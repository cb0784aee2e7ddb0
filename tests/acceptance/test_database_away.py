"""PostgreSQL refuses connections for a while: messages wait at one gate of each program, few lines say so, nothing is lost."""

from __future__ import annotations

import re
from uuid import UUID

from tests.acceptance.chaos import PATIENT, all_done, flood, half_done
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.programs import Program
from tests.acceptance.proxy import proxied
from tests.acceptance.waiting import until

AWAY, BACK = "the database is away; messages wait", "the database answers again"
REPEATED = ("the database is away; trying again", "marks not written yet", "heartbeat failed")
"""What the parts of a program say that try again and again."""
MESSAGES = 60
_COMPLAINT = re.compile(r"\[(?:warning|error|critical) *\]")


def complaints(program: Program) -> list[str]:
    """Return the lines in which a program says that something is wrong."""
    return [line for line in program.output().splitlines() if _COMPLAINT.search(line)]


def test_what_waits_for_the_database_waits_at_one_gate_of_each_program(installations: MakeInstallation) -> None:
    engine = installations(**PATIENT)
    with proxied(engine.database_url) as (proxy, url):
        programs = [engine.coordinator(ORCHESTRATOR_DATABASE_URL=url), engine.consumer(ORCHESTRATOR_DATABASE_URL=url)]
        for program in programs:
            program.ready()
        engine.client.listen()
        process_ids = flood(engine, 10)
        half_done(engine)
        before = [len(complaints(program)) for program in programs]
        proxy.refuse()
        for number in range(MESSAGES):
            engine.client.send(
                "orchestrator.commands", "workflow.start", {"workflow": "one_step"}, message_id=f"{number}"
            )
        until(lambda: AWAY in programs[0].output(), "the coordinator says that the database is away")
        asked = proxy.accepted
        until(lambda: proxy.accepted >= asked + 100, "they ask again and again")
        proxy.pass_on()
        until(lambda: engine.value("SELECT count(*) FROM processes") == len(process_ids) + MESSAGES, "all are started")
        process_ids = [UUID(str(row[0])) for row in engine.query("SELECT process_id FROM processes")]
        all_done(engine, process_ids)
        until(lambda: BACK in programs[0].output(), "the coordinator says that the database answers again")
        for program, earlier in zip(programs, before, strict=True):
            said = complaints(program)[earlier:]
            assert sum(AWAY in line for line in said) <= 2, (
                "it may have been away, and again, before it was seen to be back"
            )
            assert len(said) < MESSAGES, "no message complains by itself"
            assert sum(any(words in line for words in REPEATED) for line in said) < 25, (
                "nor does each try of the others"
            )
        assert engine.client.dead_letters() == []
        engine.kill_all()
