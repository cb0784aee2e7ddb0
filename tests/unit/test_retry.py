"""B33: how often and how long apart."""

from __future__ import annotations

import pytest
import tenacity

from orchestrator.retry import RetryPolicy


@pytest.mark.parametrize(("failures", "least"), [(1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (50, 600), (5000, 600)])
def test_by_default_the_delay_doubles_up_to_ten_minutes_with_some_jitter(failures: int, least: float) -> None:
    delays = [RetryPolicy().delay(failures) for _ in range(50)]

    assert all(delay is not None and least <= delay <= min(least + 1, 600) for delay in delays)


def test_processes_that_failed_together_do_not_come_back_together() -> None:
    assert len({RetryPolicy().delay(1) for _ in range(50)}) > 25


def test_by_default_there_is_no_limit() -> None:
    assert RetryPolicy().limit is None
    assert RetryPolicy().delay(100_000) is not None


@pytest.mark.parametrize(("failures", "expected"), [(1, 3.0), (2, 3.0), (3, None), (4, None)])
def test_a_limit_counts_all_tries(failures: int, expected: float | None) -> None:
    assert RetryPolicy(wait=tenacity.wait_fixed(3), limit=3).delay(failures) == expected


def test_a_limit_of_one_is_a_step_that_is_never_tried_again_by_itself() -> None:
    assert RetryPolicy(limit=1).delay(1) is None


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"a retry limit counts all tries and is at least 1, not {limit}"):
        RetryPolicy(limit=limit)


@pytest.mark.parametrize(
    ("wait", "delays"),
    [
        (tenacity.wait_fixed(2), [2, 2, 2]),
        (tenacity.wait_incrementing(start=1, increment=2), [1, 3, 5]),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(9)), [1, 9, 9]),
        (tenacity.wait_none(), [0, 0, 0]),
        (tenacity.wait_fixed(1) + tenacity.wait_fixed(2), [3, 3, 3]),
    ],
)
def test_any_wait_strategy_of_tenacity_may_be_used(wait: tenacity.wait.wait_base, delays: list[float]) -> None:
    assert [RetryPolicy(wait=wait).delay(failures) for failures in (1, 2, 3)] == delays


def test_a_policy_is_a_frozen_value_that_can_be_shared() -> None:
    policy = RetryPolicy()

    with pytest.raises(AttributeError):
        policy.limit = 3  # type: ignore[misc]
    assert hash(policy) == hash(policy)
