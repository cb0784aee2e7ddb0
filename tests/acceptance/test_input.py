"""Forms: at the start, and in the middle of a process."""

from __future__ import annotations

from tests.acceptance.installation import Installation
from tests.acceptance.waiting import throughout


def test_an_input_step_suspends_shows_its_schema_and_goes_on_with_the_right_input(engine: Installation) -> None:
    """B34: SUSPENDED, JSON schema from the state, all pages validated, the result merged, the author logged."""
    process_id = engine.start("asks")
    engine.wait_for(process_id, "suspended")
    (entry,) = engine.log(process_id, "Choose")
    assert entry.status == "suspend"
    form = engine.json("show", str(process_id))["form"]
    assert form["properties"]["choice"]["type"] == "string"
    assert form["properties"]["choice"]["offers"] == ["red", "blue"]

    answer = engine.resume(process_id, {"choice": "red"}, {"sure": True}, user="frida")
    assert answer.type == "process.resumed"
    assert answer.body == {"process_id": str(process_id), "status": "running"}
    engine.wait_for(process_id, "completed")
    assert engine.state(process_id) == {"offers": ["red", "blue"], "choice": "red", "sure": True}
    suspended, submitted = engine.log(process_id, "Choose")
    assert (submitted.status, submitted.author) == ("success", "frida")
    assert submitted.delta == {"choice": "red", "sure": True}
    assert suspended.author == "tester"


def test_wrong_input_is_refused_with_every_field_and_leaves_the_process_suspended(engine: Installation) -> None:
    """B34: wrong type, missing field, unknown field, a page too many; nothing is stored."""
    process_id = engine.start("asks_twice")
    engine.wait_for(process_id, "suspended")
    before = engine.log(process_id)
    for page, place in (({"amount": "many"}, "amount"), ({"amount": -1}, "amount"), ({"amount": 1, "x": 2}, "x")):
        answer = engine.resume(process_id, page)
        assert answer.type == "workflow.refused"
        assert answer.body["error"] == "InvalidInputError"
        assert answer.body["reasons"][0]["key"] == "form.invalid"
        assert answer.body["reasons"][0]["loc"] == [place]
    too_many = engine.resume(process_id, {"amount": 1}, {"amount": 2})
    assert "fewer pages than the 2 that were sent" in too_many.body["detail"]
    assert engine.status(process_id) == "suspended"
    assert engine.log(process_id) == before
    assert engine.state(process_id) == {}


def test_an_unfinished_form_is_answered_with_the_next_page(engine: Installation) -> None:
    """B34, B39: FormIncompleteError carries the next page's schema, also of a resume without pages."""
    process_id = engine.start("asks")
    engine.wait_for(process_id, "suspended")
    nothing = engine.resume(process_id)
    assert nothing.body["error"] == "FormIncompleteError"
    assert "choice" in nothing.body["form"]["properties"]
    half = engine.resume(process_id, {"choice": "blue"})
    assert half.body["form"]["properties"]["sure"]["title"] == "Really blue?"
    assert engine.status(process_id) == "suspended"


def test_two_people_who_submit_at_once_do_not_both_go_on(engine: Installation) -> None:
    """B34: the second input finds the next question, which it does not fit, and is refused."""
    process_id = engine.start("asks_twice")
    engine.wait_for(process_id, "suspended")
    assert engine.resume(process_id, {"amount": 1}, user="first").type == "process.resumed"
    second = engine.resume(process_id, {"amount": 2}, user="second")
    assert second.type == "workflow.refused"
    assert engine.state(process_id) == {"amount": 1}
    assert engine.status(process_id) == "suspended"
    engine.command("resume", str(process_id), "--input", '{"word": "go"}', "--wait")
    assert engine.state(process_id) == {"amount": 1, "word": "go"}
    late = engine.resume(process_id, {"word": "again"})
    assert "a process that is completed takes no input" in late.body["detail"]


def test_a_suspended_process_waits_and_holds_nothing(engine: Installation) -> None:
    """B34: no claim, no message, no due time; only a person moves it."""
    process_id = engine.start("asks")
    engine.wait_for(process_id, "suspended")

    def rests() -> bool:
        row = engine.query("SELECT status, claimed_by, due_at FROM processes WHERE process_id = $1", process_id)[0]
        return tuple(row) == ("suspended", None, None)

    throughout(rests, "the process is suspended and holds nothing", 1)
