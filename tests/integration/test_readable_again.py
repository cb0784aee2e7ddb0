"""What is stored can be read again, and a row that cannot be read fails its own process only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic_core import to_json

from orchestrator.db.processes.claims import Wanted, claim_many, list_claims
from orchestrator.db.processes.queries import read_log, read_state
from orchestrator.db.session import Database, to_jsonb
from orchestrator.engine.state import MAX_NESTING, read_value, store_and_read
from orchestrator.errors import InvalidInputError, OrchestratorError, ProcessFailureError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.messages import StepCommand, decode
from orchestrator.registry import plan_of
from orchestrator.services.callbacks import COMPLETED, receive
from orchestrator.services.control import abort, patch, resume, retry
from orchestrator.services.reconcile import look
from orchestrator.services.start import StartRequest, start
from orchestrator.workflow import StepList, callback_step, done, init, inputstep, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.waiting import until

VALUES: dict[str, Any] = {}
"""What the steps return and raise: by the name of the step."""
TOKENS: list[str] = []


class AnyPage(FormPage):
    value: Any


def any_form() -> FormGenerator:
    page = yield AnyPage
    return page.model_dump()


@step("Return")
async def give() -> dict[str, Any]:
    if "details" in VALUES:
        raise ProcessFailureError("no", details=VALUES["details"])
    return {"returned": VALUES.get("step")}


@inputstep("Ask", assignee="NOC")
def ask(returned: Any) -> FormGenerator:
    class Answer(FormPage):
        answer: Any

    page = yield Answer
    return page.model_dump()


@step("Order")
async def order(callback_token: str) -> None:
    TOKENS.append(callback_token)


@step("Return all of it again")
async def again(state: dict[str, Any]) -> dict[str, Any]:
    return {"again": {key: value for key, value in state.items() if key not in {"again", "callback_result"}}, **state}


@workflow("Takes anything", initial_input_form=any_form)
def takes_anything() -> StepList:
    return init >> give >> ask >> callback_step("Await the order", order, again) >> done


@workflow("Two steps")
def two_steps() -> StepList:
    return init >> give >> again >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    VALUES.clear()
    TOKENS.clear()
    async with bench_of(database, amqp_url, monkeypatch, __name__, takes_anything, two_steps) as made:
        yield made


def nest(levels: int, inside: object = 1) -> Any:
    """Return a value in so many dicts and lists."""
    for level in range(levels):
        inside = {"a": inside} if level % 2 else [inside]
    return inside


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**64, -0.0, 5e-324, 1e16, 1e23, 1.7976931348623157e308, 0.1])
    | st.builds(pow, st.just(10), st.sampled_from([308, 4299, 5000]))
    | st.floats()
    | st.text()
    | st.sampled_from(["\0", "\ud800", "\\u0000", '"', "\U0001f600"])
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
) | st.builds(nest, st.integers(MAX_NESTING - 8, MAX_NESTING + 3) | st.integers(180, 270), LEAVES)


def examples(number: int) -> list[Any]:
    """Return values of every kind, always the same."""
    drawn: list[Any] = []

    @settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(ANYTHING)
    def draw(value: Any) -> None:
        drawn.append(value)

    draw()
    return [*drawn, nest(MAX_NESTING - 2), nest(MAX_NESTING - 1), nest(MAX_NESTING), nest(MAX_NESTING + 1)]


def write(answer: object) -> bytes:
    """Return a body as some client library writes it; nothing writes halves of characters beside such numbers."""
    with suppress(ValueError):
        return to_json(answer, inf_nan_mode="constants")
    with suppress(ValueError):
        return json.dumps(answer).encode()
    return b"{"


class Life:
    """One process with a value in one of its entry points, and what became of it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    async def run(self, kind: str, value: Any) -> str:
        """Return ``refused`` or the status that the process has come to."""
        VALUES.clear()
        TOKENS.clear()
        VALUES[kind] = value
        runner = await self.bench.runner()
        try:
            async with self.bench.database.transaction() as session:
                pages = [{"value": value if kind == "start" else 1}]
                started = await start(session, StartRequest("takes_anything", pages), LIMITS)
        except InvalidInputError as error:
            assert kind == "start", error  # noqa: PT017
            return "refused"
        process_id = started.process_id
        await runner.take(await self.bench.command(process_id))
        await until(lambda: runner.running == 0, "the step is over")
        if (await self.bench.row(process_id))["status"] == "failed":
            return await self._with_details(process_id)
        if kind == "patch" and not await self._try(
            lambda session: patch(session, process_id, "me", "why", {"patched": value}, [], LIMITS)
        ):
            return "refused"
        page = {"answer": value if kind == "input" else 1}
        if not await self._try(lambda session: resume(session, process_id, [page], "me", LIMITS)):
            assert kind == "input"
            return "refused"
        await self.bench.run_step(process_id, runner, "awaiting_callback")
        answer = {"answer": value if kind == "callback" else 1}
        body = write(answer)
        if not await self._try(lambda session: receive(session, TOKENS[-1], COMPLETED, body, LIMITS)):
            assert kind == "callback"
            return "refused"
        if (await self.bench.row(process_id))["status"] == "running":
            await runner.take(await self.bench.command(process_id))
            await until(lambda: runner.running == 0, "the step is over")
        await self.is_readable(process_id)
        return str((await self.bench.row(process_id))["status"])

    async def is_readable(self, process_id: UUID) -> None:
        """Check what people and the next program read."""
        async with self.bench.database.transaction() as session:
            known = await read_state(session, process_id)
            entries = await read_log(session, process_id)
        assert "[cannot be read" not in json.dumps([known, [(one.delta, one.failure) for one in entries]])

    async def _with_details(self, process_id: UUID) -> str:
        await self.is_readable(process_id)
        failure = await self.bench.failure(process_id)
        return "failed" if "InvalidResultError" in failure else "failed with details"

    async def _try(self, use_case: Any) -> bool:
        try:
            async with self.bench.database.transaction() as session:
                await use_case(session)
        except OrchestratorError:
            return False
        return True


OUTCOMES = {
    "start": {"completed", "refused", "failed"},
    "step": {"completed", "failed"},
    "details": {"failed with details"},
    "patch": {"completed", "refused", "failed"},
    "input": {"completed", "refused", "failed"},
    "callback": {"completed", "refused", "failed"},
}


@pytest.mark.parametrize("kind", OUTCOMES)
async def test_whatever_is_accepted_can_be_read_and_written_again(bench: Bench, kind: str) -> None:
    """In whatever way it enters. The last step returns the state again, one level deeper, and may be refused for that."""
    life = Life(bench)
    outcomes = {await life.run(kind, value) for value in examples(15)}
    assert outcomes <= OUTCOMES[kind]
    assert outcomes != {"refused"}


async def test_what_passes_the_check_is_read_as_the_check_has_returned_it(database: Database) -> None:
    """Its numbers included, whichever way PostgreSQL writes them, and so it is what the next step writes."""
    passed = 0
    for value in examples(300):
        try:
            checked = store_and_read({"value": value})
        except ValueError:
            continue
        written = await database.pool.fetchval("SELECT ($1::text::jsonb)::text", to_jsonb(checked))
        assert repr(sort(read_value(written))) == repr(sort(checked))
        assert store_and_read(checked) == checked
        passed += 1
    assert passed > 100


def sort(value: Any) -> Any:
    """Return a value with the keys of its objects in order; minus zero is zero."""
    if isinstance(value, dict):
        return {key: sort(value[key]) for key in sorted(value)}
    return (
        [sort(one) for one in value] if isinstance(value, list) else value or (value if value != 0 else type(value)())
    )


DEEP = '{"good": 1, "deep": ' + "[" * 230 + "1" + "]" * 230 + "}"
HUGE = '{"good": 1, "deep": ' + "9" * 5000 + "}"
WORDS = {DEEP: "it is nested 230 levels deep, and 100 are the limit", HUGE: "it has a number out of range"}


async def spoil(bench: Bench, process_id: UUID, written: str = DEEP) -> None:
    """Store what no program of ours would store."""
    await bench.database.pool.execute(
        "UPDATE processes SET state = $2::text::jsonb WHERE process_id = $1", process_id, written
    )


@pytest.mark.parametrize("written", [DEEP, HUGE])
async def test_a_state_that_cannot_be_read_fails_its_process_and_no_other_claim_of_the_batch(
    bench: Bench, written: str
) -> None:
    processes = [await bench.start("two_steps") for _ in range(5)]
    bad = processes[2]
    await spoil(bench, bad, written)
    runner = await bench.runner()
    commands = [decode(StepCommand, (await bench.command(one)).body) for one in processes]
    consumer = bench.heartbeat
    async with bench.database.pool.acquire() as connection:
        wanted = [Wanted(one, plan_of("two_steps").fingerprint) for one in commands]
        claims = await claim_many(connection, wanted, consumer_id=consumer.consumer_id, consumer=consumer.name)
        found = await list_claims(connection, consumer.consumer_id, consumer.name)
        assert [claim is not None for claim in claims] == [True] * 5
        assert {claim.process.process_id for claim in found} == set(processes)
        await connection.execute("UPDATE processes SET claimed_by = NULL, attempt = attempt - 1")
    for one in processes:
        await runner.take(await bench.command(one))
    await until(lambda: runner.running == 0, "all attempts are over")
    statuses = [(await bench.row(one))["status"] for one in processes]
    assert statuses == ["running", "running", "failed", "running", "running"]
    failure = await bench.failure(bad)
    assert "UnreadableStateError" in failure
    assert f"the value of 'deep': {WORDS[written]}" in failure

    # A retry fails with the same words; the way out is a patch.
    async with bench.database.transaction() as session:
        await retry(session, bad, "me", LIMITS)
    await bench.run_step(bad, runner, "failed")
    async with bench.database.transaction() as session:
        log = await read_log(session, bad)
        assert len({entry.failure["message"] for entry in log if entry.failure}) == 1
        shown = await read_state(session, bad)
        assert shown == {"good": 1, "deep": f"[cannot be read: {shown['deep'][len('[cannot be read: ') :]}"}
        await patch(session, bad, "me", "too deep", {}, ["deep"], LIMITS)
        await retry(session, bad, "me", LIMITS)
    await bench.run_step(bad, runner, "running")
    await bench.run_step(bad, runner, "completed")


async def test_a_process_whose_state_cannot_be_read_can_be_aborted_and_looked_at(bench: Bench) -> None:
    process_id = await bench.start("two_steps")
    await spoil(bench, process_id)
    async with bench.database.transaction() as session:
        assert await look(session, process_id, LIMITS) is not None
        message = await abort(session, process_id, "me", LIMITS)
    assert message.status == "aborted"


async def test_a_lost_claim_whose_state_cannot_be_read_is_released_with_the_others(bench: Bench) -> None:
    processes = [await bench.start("two_steps") for _ in range(3)]
    await bench.runner()
    await spoil(bench, processes[1])
    await bench.database.pool.execute("UPDATE processes SET claimed_by = $1, claimed_at = now()", uuid4())
    await bench.database.pool.execute("UPDATE processes SET claimed_at = now() - interval '1 hour'")
    reconciler = bench.reconciler()
    reconciler._connected_since = -1e9

    async def released() -> bool:
        await reconciler.run_once()
        return bool(
            await bench.database.pool.fetchval("SELECT count(*) = 0 FROM processes WHERE claimed_by IS NOT NULL")
        )

    await until(released, "the claims are released")


async def test_input_for_a_process_whose_state_cannot_be_read_is_refused_with_words(bench: Bench) -> None:
    async with bench.database.transaction() as session:
        process_id = (await start(session, StartRequest("takes_anything", [{"value": 1}]), LIMITS)).process_id
    runner = await bench.runner()
    await bench.run_step(process_id, runner, "suspended")
    await spoil(bench, process_id)
    with pytest.raises(OrchestratorError, match=r"the state of this process cannot be read \(the value of 'deep': "):
        async with bench.database.transaction() as session:
            await resume(session, process_id, [{"answer": 1}], "me", LIMITS)
    assert (await bench.row(process_id))["status"] == "suspended"


async def test_an_answer_that_cannot_be_read_fails_its_step(bench: Bench) -> None:
    """One that an earlier version has kept because it was early."""
    async with bench.database.transaction() as session:
        process_id = (await start(session, StartRequest("takes_anything", [{"value": 1}]), LIMITS)).process_id
    runner = await bench.runner()
    await bench.run_step(process_id, runner, "suspended")
    async with bench.database.transaction() as session:
        await resume(session, process_id, [{"answer": 1}], "me", LIMITS)
    await bench.run_step(process_id, runner, "awaiting_callback")
    await bench.database.pool.execute("UPDATE callbacks SET outcome = 'completed', payload = $1::text::jsonb", DEEP)
    async with bench.database.transaction() as session:
        message = await look(session, process_id, LIMITS)
    assert message is not None
    assert message.status == "failed"
    assert "the callback's answer cannot be taken: it cannot be read: it is nested 231 levels" in await bench.failure(
        process_id
    )
