"""Those that wait in a line go on in order, and nothing is lost with one that gives up."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.line import Line


@given(count=st.integers(1, 8), cancelled=st.sets(st.integers(0, 7)), late=st.sets(st.integers(0, 7)))
def test_all_go_on_in_order_but_those_that_are_cancelled_and_what_these_had_comes_back(
    count: int, cancelled: set[int], late: set[int]
) -> None:
    async def main() -> None:
        line, went_on, given_back = Line(), list[int](), list[int]()

        async def wait(number: int) -> None:
            await line.wait(lambda: given_back.append(number))
            went_on.append(number)

        tasks = [asyncio.create_task(wait(number)) for number in range(count)]
        await asyncio.sleep(0)
        for number in cancelled.intersection(range(count)):
            tasks[number].cancel()
        while line:
            line.let_go_on()
        for number in late.intersection(range(count)):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = [number for number in range(count) if number not in cancelled]
        assert went_on == [number for number in left if number not in late]
        assert given_back == [number for number in left if number in late]

    asyncio.run(main())
