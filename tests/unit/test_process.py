"""A process with changes is what the standard library makes of them."""

from dataclasses import fields, replace
from uuid import uuid4

import pytest

from orchestrator.engine.process import Process, with_changes
from orchestrator.types import ProcessStatus


def _process() -> Process:
    return Process(uuid4(), "count", ProcessStatus.RUNNING, 1, "a step", 2, 3, {"known": 1}, "me", "you", plan="a plan")


@pytest.mark.parametrize("name", [one.name for one in fields(Process)])
def test_each_field_of_a_process_can_be_changed_and_the_others_stay(name: str) -> None:
    process = _process()
    before = replace(process)
    changes: dict[str, object] = {name: object()}

    changed = with_changes(process, **changes)

    assert changed == replace(process, **changes)  # type: ignore[arg-type]
    assert process == before


def test_a_field_that_a_process_does_not_have_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        with_changes(_process(), colour="red")
