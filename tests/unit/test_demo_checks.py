"""The demo's checks: one that does not hold is printed, counted and kept, and makes the demo fail."""

from __future__ import annotations

import pytest

from examples.demo.driver.screen import Screen


def test_a_check_that_holds_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.expect("two is even", holds=True, found=2)
    screen.expect_none("no port was given away twice", [])

    assert (screen.checks, screen.failures) == (2, [])
    assert capsys.readouterr().out == "  yes  two is even\n  yes  no port was given away twice\n"


def test_a_check_that_does_not_hold_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.expect("the VLANs are two", holds=False, found=[])
    screen.expect_none("no port was given away twice", ["ams-1/3", "utr-1/1"], indent=8)

    assert screen.checks == 2
    assert screen.failures == ["the VLANs are two: []", "no port was given away twice: ams-1/3, utr-1/1"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["  no   the VLANs are two: []", "        no   no port was given away twice: ams-1/3, utr-1/1"]
