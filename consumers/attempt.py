"""An attempt that this consumer has claimed, with its database session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import replace
from uuid import UUID

from consumers.run_ahead import Stretch
from orchestrator.activity import Activity, format_seconds
from orchestrator.broker.topology import Exchanges
from orchestrator.db.callbacks import read_token
from orchestrator.db.processes.claims import Claim
from orchestrator.db.session import SAVED, Database, is_database_loss
from orchestrator.db.step_session import StepSession
from orchestrator.engine.events import StepFailed, StepSucceeded
from orchestrator.engine.plan import Plan
from orchestrator.services.injection import Loaded, ReturnedModels, load_arguments, save_models
from orchestrator.services.steps import RUNNING_STEP, Attempt, RunningStep
from orchestrator.services.subscriptions import passes_locks
from orchestrator.services.users import check_changed
from orchestrator.settings import Limits
from orchestrator.workflow import StepKind


class ClaimedAttempt(Attempt):
    """One attempt of one step: its claim, its session and its task.

    The session exists only if the step requests it or returns models.
    """

    task: asyncio.Task[None]
    activity: Activity | None = None
    stretch: Stretch | None = None
    """The stretch to which it belongs; a suspect belongs to none, because it never runs ahead."""

    def __init__(self, database: Database, claim: Claim, plan: Plan) -> None:
        super().__init__(claim.process, plan)
        self.claim = claim
        self.began_at = time.monotonic()
        self.session: StepSession | None = None
        self._database = database
        self._has_loaded = False

    @property
    def note(self) -> str | None:
        """A remark for the process's log about how this attempt ran: whether it blocked the event loop."""
        blocked = None if self.activity is None else self.activity.blocked
        if blocked is None:
            return None
        place = "" if blocked.at is None else f" at {blocked.at}"
        return (
            f"blocked its consumer's event loop for {format_seconds(blocked.seconds)}{place}: use a plain function (def), or"
            " await"
        )

    def annotate(self, outcome: StepSucceeded | StepFailed) -> StepSucceeded | StepFailed:
        """Return an outcome with this attempt's note added to its own."""
        note = self.note
        if note is None:
            return outcome
        return replace(outcome, note=note if outcome.note is None else f"{outcome.note}; {note}")

    @property
    def needs_connection(self) -> bool:
        """Whether the step will take a connection, because it has parameters for models or the session."""
        arguments = self.leaf.arguments
        return bool(arguments.stored) or "session" in arguments.engine

    async def read_token(self) -> None:
        """Read the callback token from the database, if the step is the action of a callback step."""
        if self.leaf.step.kind is StepKind.ACTION:
            async with self._database.pool.acquire() as connection:
                self.token = await read_token(connection, self.process.process_id)

    def engine_arguments(self, limits: Limits) -> dict[str, object]:
        arguments = super().engine_arguments(limits)
        if "session" in self.leaf.arguments.engine:
            session = self._open_session()
            arguments["session"] = session.sync_session if self.leaf.arguments.is_plain else session
            session.info[RUNNING_STEP] = RunningStep(self.process, limits)
        callback = self.leaf.step.callback
        if self.token is not None and callback is not None:
            arguments["callback_token"] = self.token
            arguments["callback_exchange"] = Exchanges.CALLBACKS.value
            path = f"/api/processes/{self.process.process_id}/callback/{self.token}"
            arguments[callback.route_key] = f"{limits.public_url or ''}{path}"
        return arguments

    async def load_models(self) -> Loaded:
        """Load models in a transaction of its own, so that no connection is held while the step runs.

        A change that another process makes in between is found when the model is saved, by its version.
        """
        self._has_loaded = True
        async with self._database.transaction() as session:
            return await load_arguments(session, self.leaf.arguments, self.process.state)

    @property
    def saved(self) -> Collection[UUID]:
        return () if self.session is None else self.session.info.get(SAVED, ())

    async def save_models(self, returned: ReturnedModels) -> object:
        return await save_models(self._open_session(), returned)

    @property
    def has_written(self) -> bool:
        return self.session is not None and self.session.used

    async def flush(self) -> None:
        if self.session is not None:
            await self.session.flush()
            await check_changed(self.session, self.plan.workflow)

    def is_outage(self, error: Exception) -> bool:
        return (self.session is not None or self._has_loaded) and is_database_loss(error)

    def explain(self, error: Exception) -> Exception:
        return error if self.session is None else self.session.explained(error)

    async def discard(self) -> None:
        """Roll back whatever was not committed; never raises."""
        if self.session is not None:
            await self.session.discard()

    def _open_session(self) -> StepSession:
        """Return the step's session, which takes a connection when it is first used."""
        if self.session is None:
            workflow = self.plan.workflow
            self.session = StepSession(
                self._database.engine, self.process.process_id, passes_locks=passes_locks(workflow)
            )
        return self.session
