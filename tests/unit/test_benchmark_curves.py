"""What is kept of a run of the curves that was interrupted, and what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.charts import draw
from tests.benchmarks.curves import CURVES, read_points, write_points

CONDITIONS: dict[str, Any] = {"full": False, "cores": 2, "run ahead": None, "processes": 300}
POINTS = {1: {"steps/s": 10.0}, 10: {"steps/s": 1234.5}}


def test_points_are_kept_for_a_run_under_the_same_conditions_only(tmp_path: Path) -> None:
    curve = CURVES["length"]
    points = {number: dict.fromkeys(curve.shown, 1.0) for number in (1, 10)}
    write_points(tmp_path, "length", curve, points, CONDITIONS)
    assert read_points(tmp_path, "length", CONDITIONS) == points
    assert read_points(tmp_path, "length", {**CONDITIONS, "processes": 20}) == {}
    assert read_points(tmp_path, "live", CONDITIONS) == {}
    assert "no figures to quote" in (tmp_path / "length.svg").read_text()


def test_each_line_has_its_points_and_its_largest_value() -> None:
    picture = draw("A & B", "steps", {"steps/s": [(number, one["steps/s"]) for number, one in POINTS.items()]})
    assert "A &amp; B" in picture
    assert "steps/s: 0 to 1,234" in picture
    assert picture.count("<circle") == len(POINTS)
    assert "<title>10</title>" in picture


def test_each_point_of_a_curve_is_a_larger_one() -> None:
    for name, curve in CURVES.items():
        assert list(curve.full) == sorted(set(curve.full)), name
        assert curve.small[0] < curve.small[1], name
