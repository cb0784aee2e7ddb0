"""The demo's patience: no limit on the whole run, one on the silence between two signs of life."""

from __future__ import annotations

import pytest

from examples.demo.driver.patience import SILENCE, DemoError, Patience


class Clock:
    """A clock on which waiting takes no time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_run_with_signs_of_life_may_take_any_time() -> None:
    clock = Clock()
    patience = Patience(clock, clock.sleep)

    def comes_late() -> bool:
        if clock.now % (SILENCE / 2) < 1:
            patience.sign()
        return clock.now > 100 * SILENCE

    assert patience.until("what comes", comes_late)
    assert clock.now > 100 * SILENCE


def test_a_silent_run_fails_and_names_what_was_awaited() -> None:
    clock = Clock()
    patience = Patience(clock, clock.sleep)
    assert patience.until("what comes", lambda: clock.now > 1)
    with pytest.raises(DemoError, match=r"^no sign of life for 60 s\. Awaited: every process is completed$"):
        patience.until("every process is completed", lambda: False)
    assert clock.now == pytest.approx(1 + SILENCE, abs=1)


def test_waiting_begins_when_something_is_awaited() -> None:
    """A command that took long before is not the fault of what is awaited now."""
    clock = Clock()
    patience = Patience(clock, clock.sleep)
    clock.sleep(2 * SILENCE)
    assert patience.until("what comes", lambda: clock.now > 2 * SILENCE + 1)
