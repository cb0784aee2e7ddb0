"""Forms, run predicates and authorization callbacks use the database in the transaction of the request, plain ones, too."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, Literal

import pytest
from pydantic import field_validator
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from orchestrator import user_code
from orchestrator.authorization import Action, Attempted
from orchestrator.db.session import Database
from orchestrator.errors import (
    CommitNotAllowedError,
    DefinitionError,
    ForbiddenError,
    FormIncompleteError,
    InvalidInputError,
    PredicateFailedError,
    SessionEndedError,
)
from orchestrator.forms import AsyncFormGenerator, FormGenerator, FormPage
from orchestrator.services.hooks import authorize, check_predicate, run_form
from orchestrator.types import State
from orchestrator.workflow import StepList, Workflow, done, init, workflow
from tests.integration.plain_steps import commit, step_session
from tests.integration.step_sessions import Item, checked_out, guard
from tests.integration.waiting import until

WHAT = "the form of 'w'"
SITES = ("Amsterdam", "Utrecht")


@pytest.fixture(autouse=True)
async def sites(database: Database) -> None:
    await database.pool.execute("CREATE TABLE sites (name text PRIMARY KEY, ports int NOT NULL DEFAULT 2)")
    await database.pool.executemany("INSERT INTO sites VALUES ($1)", [(name,) for name in SITES])


@pytest.fixture(autouse=True)
def no_errors_logged() -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs


def errors(logs: list[Any]) -> list[Any]:
    return [one for one in logs if one["log_level"] in ("warning", "error", "critical")]


class Name(FormPage):
    name: str


def list_sites(session: Session) -> list[str]:
    return list(session.scalars(text("SELECT name FROM sites ORDER BY name")))


def choose_site(session: Session) -> Generator[type[FormPage], Any, str]:
    """A part of forms: choices from the database, and a validator that asks it."""
    names = tuple(list_sites(session))

    class Site(FormPage):
        site: Literal[names]  # type: ignore[valid-type]

        @field_validator("site")
        @classmethod
        def has_ports(cls, site: str) -> str:
            if not session.scalar(text("SELECT ports > 0 FROM sites WHERE name = :name"), {"name": site}):
                raise ValueError(f"{site} has no free port")
            return site

    return str((yield Site).site)


def order_form(session: Session, state: State) -> FormGenerator:
    name = yield Name
    site = yield from choose_site(session)
    ports = session.scalar(text("SELECT ports FROM sites WHERE name = :name"), {"name": site})
    return {"name": name.model_dump()["name"], "site": site, "ports": ports, "seen": dict(state)}


async def fill(database: Database, form: Callable[..., Any], *pages: State, state: State | None = None) -> State:
    async with database.transaction() as session:
        arguments = {"session": session} if state is None else {"session": session, "state": state}
        return await run_form(form, arguments, pages, WHAT)


async def test_a_plain_form_makes_its_choices_of_what_the_database_has_and_its_validators_ask_it(
    database: Database, no_errors_logged: list[Any]
) -> None:
    with pytest.raises(FormIncompleteError) as next_page:
        await fill(database, order_form, {"name": "a"}, state={})
    assert next_page.value.form["properties"]["site"]["enum"] == list(SITES)  # type: ignore[index, call-overload]

    await database.pool.execute("UPDATE sites SET ports = 0 WHERE name = 'Utrecht'")
    with pytest.raises(InvalidInputError, match="site: Utrecht has no free port"):
        await fill(database, order_form, {"name": "a"}, {"site": "Utrecht"}, state={})

    state = await fill(database, order_form, {"name": "a"}, {"site": "Amsterdam"}, state={"customer": "Bakery"})
    seen = {"customer": "Bakery", "name": "a", "site": "Amsterdam"}
    assert state == {"name": "a", "site": "Amsterdam", "ports": 2, "seen": seen}
    assert checked_out(database) == 0
    assert errors(no_errors_logged) == []


async def test_a_plain_form_that_stops_at_its_first_page_has_its_session_to_the_end(
    database: Database, no_errors_logged: list[Any]
) -> None:
    ended: list[tuple[int, list[str]]] = []

    def form(session: Session) -> FormGenerator:
        try:
            with session.begin_nested():
                session.execute(text("INSERT INTO sites VALUES ('Delft')"))
                yield Name
        finally:
            ended.append((threading.get_ident(), list_sites(session)))
        return {}

    with pytest.raises(FormIncompleteError):
        await fill(database, form)

    assert [names for _, names in ended] == [list(SITES)]  # the savepoint was rolled back, the session lives
    assert threading.get_ident() not in {thread for thread, _ in ended}
    assert checked_out(database) == 0
    assert errors(no_errors_logged) == []


def guarded(predicate: Any) -> Workflow:
    @workflow("Guarded", run_predicate=predicate)
    def w() -> StepList:
        return init >> done

    return w


ASKED = Attempted("ann", "w", None, Action.START)


def plain_hook(session: Session) -> bool:
    return list_sites(session)[0] == "Aalsmeer"


async def async_hook(session: AsyncSession) -> bool:
    return bool(await session.scalar(text("SELECT min(name) = 'Aalsmeer' FROM sites")))


@pytest.mark.parametrize("hook", [plain_hook, async_hook])
async def test_predicates_and_callbacks_see_what_the_request_has_written(
    database: Database, hook: Callable[..., bool]
) -> None:
    """In the same transaction, on the same connection."""
    async with database.transaction() as session:
        with pytest.raises(PredicateFailedError):
            await check_predicate(session, guarded(hook), "ann")
        with pytest.raises(ForbiddenError):
            await authorize(hook, ASKED, session)
        await session.execute(text("INSERT INTO sites VALUES ('Aalsmeer')"))
        await check_predicate(session, guarded(hook), "ann")
        await authorize(hook, ASKED, session)
        assert checked_out(database) == 1
    assert checked_out(database) == 0


async def ask_predicate(session: AsyncSession, hook: Any) -> None:
    await check_predicate(session, guarded(hook), "ann")


async def ask_callback(session: AsyncSession, hook: Any) -> None:
    await authorize(hook, ASKED, session)


async def ask_form(session: AsyncSession, hook: Any) -> None:
    await run_form(hook, {"session": session}, [{}], WHAT)


Ask = Callable[[AsyncSession, Any], Awaitable[None]]
Attempt = Callable[[Any], Any]

WAYS: list[tuple[Attempt, str]] = [
    (lambda session: session.commit(), "commit"),
    (lambda session: session.rollback(), "roll back"),
    (lambda session: session.close(), "close its session"),
    (lambda session: session.execute(text("COMMIT")), "send COMMIT"),
]


def plain_of(attempt: Attempt, result: object, *, swallows: bool) -> Callable[..., Any]:
    def hook(session: Session) -> object:
        session.execute(text("INSERT INTO sites VALUES ('Delft')"))
        try:
            attempt(session)
        except Exception:
            if not swallows:
                raise
        return result

    return hook


def async_of(attempt: Attempt, result: object, *, swallows: bool) -> Callable[..., Any]:
    async def hook(session: AsyncSession) -> object:
        await session.execute(text("INSERT INTO sites VALUES ('Delft')"))
        try:
            await attempt(session)
        except Exception:
            if not swallows:
                raise
        return result

    return hook


@pytest.mark.parametrize(
    ("ask", "result", "who", "refusal"),
    [
        (ask_predicate, True, "its run predicate", PredicateFailedError),
        (ask_callback, True, "its authorization callback", ForbiddenError),
        (ask_form, FormPage, WHAT, DefinitionError),
    ],
)
async def test_whoever_ends_the_transaction_is_refused_and_nothing_is_written(
    database: Database, ask: Ask, result: object, who: str, refusal: type[Exception]
) -> None:
    why = r"the transaction is that of the request that has called it \(savepoints are allowed\)"
    for make, swallows, (attempt, words) in product((plain_of, async_of), (False, True), WAYS):
        with pytest.raises(refusal, match=f"{who} may not {words}: {why}"):
            async with database.transaction() as session:
                await ask(session, make(attempt, result, swallows=swallows))
        assert await database.pool.fetchval("SELECT count(*) FROM sites") == len(SITES)
    assert checked_out(database) == 0


class Left:
    """A plain function that ignores its timeout, and tries the session when it is let go."""

    def __init__(self, before: Callable[[Session], object]) -> None:
        self._before = before
        self.released = threading.Event()
        self.outcome: BaseException | str | None = None

    def __call__(self, session: Session) -> bool:
        try:
            self._before(session)
            self.released.wait(60)
            session.execute(text("INSERT INTO sites VALUES ('Delft')"))
            self.outcome = "sent"
        except BaseException as error:
            self.outcome = error
            raise
        return True


async def test_a_function_that_goes_on_after_its_time_has_no_session_any_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request goes on: here as a step that starts many processes does, one of whose forms has hung."""
    monkeypatch.setattr(user_code, "HOOK_TIMEOUT", 0.2)
    left = Left(list_sites)
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO sites VALUES ('Aalsmeer')"))
        with pytest.raises(PredicateFailedError, match=r"was cancelled: it ran longer than 0\.2 s"):
            await check_predicate(session, guarded(left), "ann")
        await session.execute(text("INSERT INTO sites VALUES ('Breda')"))
        left.released.set()
        await until(lambda: left.outcome is not None, "the function has ended")
        assert await session.scalar(text("SELECT count(*) FROM sites")) == len(SITES) + 2
    assert isinstance(left.outcome, SessionEndedError)
    assert str(left.outcome).startswith("its run predicate has ended, and its session with it")
    assert await database.pool.fetchval("SELECT count(*) FROM sites") == len(SITES) + 2
    assert checked_out(database) == 0


async def test_a_form_that_a_step_calls_for_another_process_does_not_make_the_step_fail(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that starts processes goes on after one that is refused: with its transaction, and with its guards."""
    monkeypatch.setattr(user_code, "HOOK_TIMEOUT", 0.5)
    left = Left(list_sites)
    async with step_session(database) as session:
        await session.execute(text("INSERT INTO sites VALUES ('Aalsmeer')"))
        await check_predicate(session, guarded(plain_hook), "ann")
        for hook in (plain_of(WAYS[3][0], True, swallows=True), left):
            with pytest.raises(PredicateFailedError):
                await check_predicate(session, guarded(hook), "ann")
        await session.execute(text("INSERT INTO sites VALUES ('Breda')"))
        with pytest.raises(CommitNotAllowedError, match="a step may not send COMMIT"):
            await session.execute(text("COMMIT"))
        session.guard.violation = None
        await commit(session)
    left.released.set()
    await until(lambda: left.outcome is not None, "the function has ended")
    assert isinstance(left.outcome, SessionEndedError)
    # Delft is what the first of the two has written: going back to a savepoint is the step's.
    assert await database.pool.fetchval("SELECT count(*) FROM sites") == len(SITES) + 3
    assert checked_out(database) == 0


async def test_a_statement_that_takes_too_long_is_cancelled(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_code, "HOOK_TIMEOUT", 0.3)
    left = Left(lambda session: session.execute(text("SELECT pg_sleep(60)")))
    began = time.monotonic()
    with pytest.raises(DefinitionError, match=r"the form of 'w' was cancelled: it ran longer than 0\.3 s"):
        await fill(database, left)
    assert isinstance(left.outcome, asyncio.CancelledError)
    assert time.monotonic() - began < 30
    assert checked_out(database) == 0
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
    assert await database.pool.fetchval(f"{running} AND datname = current_database() AND state = 'active'") == 0


# The session of the function has rolled back already what the request rolls back.
@pytest.mark.filterwarnings("ignore:transaction already deassociated from connection")
async def test_what_a_function_has_added_is_written_in_the_transaction_of_the_request(database: Database) -> None:
    def adding(session: Session) -> bool:
        session.add(Item(number=1, name="one"))
        return True

    await guard(database)
    async with database.transaction() as session:
        await check_predicate(session, guarded(adding), "ann")
        assert await session.scalar(text("SELECT name FROM items")) == "one"
    assert await database.pool.fetchval("SELECT name FROM items") == "one"
    with pytest.raises(PredicateFailedError, match="what its run predicate has added cannot be stored: IntegrityError"):
        async with database.transaction() as session:
            await check_predicate(session, guarded(adding), "ann")
    assert checked_out(database) == 0


async def test_an_async_form_has_its_session_to_the_end_as_well(
    database: Database, no_errors_logged: list[Any]
) -> None:
    ended: list[object] = []

    async def form(session: AsyncSession) -> AsyncFormGenerator:
        try:
            async with session.begin_nested():
                await session.execute(text("INSERT INTO sites VALUES ('Delft')"))
                yield Name
        finally:
            ended.append(await session.scalar(text("SELECT count(*) FROM sites")))

    with pytest.raises(FormIncompleteError):
        await fill(database, form)
    assert ended == [len(SITES)]
    assert checked_out(database) == 0
    assert errors(no_errors_logged) == []


async def test_plain_functions_do_not_take_up_the_threads_in_which_names_of_hosts_are_looked_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many wait for their first connection as the event loop has threads, and the database's host is a name."""
    host = database_url.rsplit("@", maxsplit=1)[-1].split("/", maxsplit=1)[0]
    named = database_url.replace(host, f"localhost:{host.rpartition(':')[2]}")
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as few:
        loop.set_default_executor(few)
        cold = Database(named, pool_size=4, connect_timeout=5, application_name="tests")
        try:

            def hook(session: Session) -> bool:
                return len(list_sites(session)) == len(SITES)

            async def one() -> None:
                async with cold.transaction() as session:
                    await check_predicate(session, guarded(hook), "ann")

            async with asyncio.timeout(60):
                await asyncio.gather(*[one() for _ in range(4)])
            assert checked_out(cold) == 0
        finally:
            await cold.close()
