"""Targets that refuse messages are tried rarely and reported rarely, until they take them again."""

from __future__ import annotations

from collections import Counter

from structlog.testing import capture_logs

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.targets import CALM, LONGEST, Targets

ONE, OTHER = Outgoing("steps", "ims", "step.command", b""), Outgoing("steps", "default", "step.command", b"")


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_target_is_left_alone_longer_and_longer_and_no_other_is() -> None:
    clock = Clock()
    targets = Targets(clock)
    pauses = []
    for _ in range(8):
        targets.refuse(ONE, "no")
        before = clock.now
        while targets.find_refusal(ONE) is not None:
            assert targets.find_refusal(OTHER) is None
            clock.now += 0.1
        pauses.append(round(clock.now - before, 1))
    assert pauses == sorted(pauses)
    assert 0.5 <= pauses[0] < 1
    assert pauses[-1] <= LONGEST + 0.2


def test_thousands_of_refusals_are_a_few_lines_that_count_them() -> None:
    clock = Clock()
    targets = Targets(clock)
    with capture_logs() as log:
        for _ in range(12_000):
            targets.refuse(ONE, "full", pauses=False)
            clock.now += 0.01
    counts = Counter(line["event"] for line in log)
    assert counts == {"messages are refused; others go on, and these are tried again": 4}
    assert next(line["refused"] for line in log) == 1
    assert sum(line["refused"] for line in log) <= 12_000


def test_a_target_that_takes_some_and_refuses_others_is_not_reported_each_time() -> None:
    clock = Clock()
    targets = Targets(clock)
    with capture_logs() as log:
        for _ in range(1000):
            targets.isolate(ONE)
            targets.refuse(ONE, "full", pauses=False)
            assert not targets.accept(ONE)
            assert targets.is_isolated(ONE)
            clock.now += 0.01
        clock.now += CALM
        assert targets.accept(ONE)
    assert not targets.is_isolated(ONE)
    assert [line["event"] for line in log][-1] == "messages are taken again"
    assert len(log) == 2


def test_the_default_exchange_is_one_target_whatever_the_key() -> None:
    targets = Targets(Clock())
    for number in range(5000):
        targets.isolate(Outgoing("", f"reply-{number}", "workflow.started", b""))
    assert targets.is_isolated(Outgoing("", "another", "workflow.started", b""))
    assert not targets.is_isolated(ONE)
