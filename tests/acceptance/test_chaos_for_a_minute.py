"""A minute of everything at random; ``scripts/chaos`` does it for longer, and with other numbers."""

from __future__ import annotations

import pytest

from tests.acceptance.pair import Pair
from tests.chaos.run import run

SEED = 13


# A client of a broker that dies while it connects leaves a connection which nobody can close any more.
@pytest.mark.filterwarnings(
    "ignore:coroutine 'Connection.close' was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_minute_of_random_faults_leaves_nothing_lost_doubled_or_alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """B8, B42: programs, servers and networks that die, freeze, fall silent and forget, and deploys, all side by side."""
    folder = tmp_path_factory.mktemp("chaos-for-a-minute")
    pair = Pair(folder / "services")
    timeline: list[str] = []
    try:
        pair.run("up")
        found = run(folder / "run", pair, SEED, 60.0, timeline.append)
    finally:
        pair.run("down", "--wipe")
    violated = [f"{one.name}: {line}" for one in found for line in one.wrong]
    assert violated == [], "\n".join([*timeline, *map(str, found)])
