"""What one attempt has of the database: short reads before the step, and the transaction that its writes go into."""

from __future__ import annotations

from uuid import UUID

from orchestrator.db.session import Database, is_database_loss
from orchestrator.db.step_session import StepSession
from orchestrator.engine.arguments import Arguments
from orchestrator.services.injection import Loaded, ReturnedModels, load_arguments, save_models
from orchestrator.types import State


class Work:
    """The database's part in one attempt. Its session exists only if the step asks for it or returns models."""

    def __init__(self, database: Database, process_id: UUID, *, passes_locks: bool = False) -> None:
        self._database = database
        self._process_id = process_id
        self._passes_locks = passes_locks
        self._has_loaded = False
        self.session: StepSession | None = None

    def open(self) -> StepSession:
        """The step's session; it takes a connection when it is first used."""
        if self.session is None:
            self.session = StepSession(self._database.engine, self._process_id, passes_locks=self._passes_locks)
        return self.session

    async def load(self, arguments: Arguments, state: State) -> Loaded:
        """Load models in a transaction of its own, so that no connection is held while the step talks to the network.

        What changes in between is noticed when the model is saved: by its version.
        """
        self._has_loaded = True
        async with self._database.transaction() as session:
            return await load_arguments(session, arguments, state)

    async def save(self, returned: ReturnedModels) -> object:
        """Save models in the step's transaction."""
        return await save_models(self.open(), returned)

    async def send(self) -> None:
        """Send what the step has left pending in its session, if it has used it."""
        if self.session is not None and self.session.used:
            await self.session.flush()

    def is_outage(self, error: BaseException) -> bool:
        """Whether an error means that our database went away under the attempt, if it has used it at all."""
        return (self.session is not None or self._has_loaded) and is_database_loss(error)

    def explained(self, error: Exception) -> Exception:
        """The error with words to it, if it says too little of the session's use."""
        return error if self.session is None else self.session.explained(error)

    async def discard(self) -> None:
        """Undo whatever was not committed; never raises."""
        if self.session is not None:
            await self.session.discard()
