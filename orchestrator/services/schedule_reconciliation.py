"""Make the database know the schedules that the code declares. Repeating it changes nothing, and any number of programs may.

Code owns what it declares, people own what they have made. A field that a person has changed stays as he wants it; code decides
the others. What code declares no longer is disabled and keeps its record; what a person has removed stays removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

import structlog
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.schedules import changes as rows
from orchestrator.db.schedules.changes import Change
from orchestrator.db.schedules.declarations import come_into_force, count_declared, lock_dropped, mark_broken
from orchestrator.db.schedules.rows import StoredSchedule, lock_schedules
from orchestrator.db.session import Database, is_connection_error, read_time
from orchestrator.declared_schedules import Schedule, Source, list_declared
from orchestrator.engine.schedule import Origin, ScheduleDefinition, read_definition, write_definition
from orchestrator.errors import FormIncompleteError, InvalidInputError, OrchestratorError, WorkflowBusyError
from orchestrator.services.firing import author_of
from orchestrator.services.schedule_store import apply, columns_of, disable, stand
from orchestrator.services.start import StartRequest, check_request
from orchestrator.settings import Limits
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

AUTHOR = "code"
"""Who has changed a schedule, in its record, when its declaration was changed."""

NOT_DECLARED = "the code declares it no longer"

PATIENCE = 30.0
"""Seconds after which a program with newer declarations is gone that was not seen."""

_DECLARED_SO = "declared so"


@dataclass(slots=True)
class Reconciliation:
    """The declarations of one source in this program.

    Args:
        in_force: whether the database has been made to know them, and no newer ones have come since.
    """

    source: Source
    schedules: Mapping[str, ScheduleDefinition]
    author: str
    patience: float = PATIENCE
    in_force: bool = False
    _was_left: bool = field(default=False, init=False)
    _broken: dict[str, str] = field(default_factory=dict, init=False)
    """Which schedules could not start anything when this program last looked, and why."""

    @property
    def written(self) -> dict[str, dict[str, Any]]:
        """The declarations as the database keeps them."""
        return {
            name: {**write_definition(definition), "source": self.source.value}
            for name, definition in self.schedules.items()
        }

    async def reconcile(self, database: Database, limits: Limits) -> None:
        """Store the declarations, once they are in force."""
        written = self.written
        fingerprint = sha256(to_json(written)).hexdigest()
        async with database.transaction() as session:
            if not self.schedules:
                # Perhaps a module is missing in ORCHESTRATOR_WORKFLOWS: nothing is disabled because of that.
                kept = await count_declared(session, self.source)
                self._report_none(kept)
                return
            in_force = await come_into_force(
                session, self.source, fingerprint, written, author=self.author, patience=self.patience
            )
            unsure = await self._apply(session) if in_force and not self.in_force else sorted(self._broken)
        if not in_force and not self._was_left:
            logger.warning(
                "schedules are left as they are: a newer version of the code declares others, and its programs run",
                source=self.source.value,
            )
        self._was_left = not in_force
        self.in_force = in_force
        for name in unsure:
            await self._check_pages(database, self.schedules[name], limits)

    def _report_none(self, kept: int) -> None:
        if kept and not self._was_left:
            logger.warning(
                "this program declares no schedules: those that code has declared before stay; remove them by hand, or"
                " declare one to disable the others",
                source=self.source.value,
                schedules=kept,
            )
        self._was_left = True

    async def _apply(self, session: AsyncSession) -> list[str]:
        """Store what differs; return the names of the schedules that are new, changed, or were broken when one last looked."""
        now = await read_time(session)
        written = self.written
        known = await lock_schedules(session, sorted(self.schedules))
        unsure = []
        for name, definition in sorted(self.schedules.items()):
            stored = known.get(name)
            if stored is None:
                stored = await self._insert(session, definition, written[name], now)
            is_changed = stored is None or await _update(session, stored, definition, written[name], now)
            if is_changed or _may_work_again(stored):
                unsure.append(name)
        for stored in await lock_dropped(session, self.source, list(self.schedules)):
            await _drop(session, stored)
        return unsure

    async def _insert(
        self, session: AsyncSession, definition: ScheduleDefinition, declared: Mapping[str, Any], now: datetime
    ) -> StoredSchedule | None:
        """Store a schedule that is new; return it, if a person has made one of this name at this moment."""
        schedule_id = uuid4()
        values = {
            "name": definition.name,
            "origin": Origin.CODE.value,
            "declared": declared,
            "disabled_reason": None if definition.enabled else _DECLARED_SO,
            **write_definition(definition),
            **stand(schedule_id, definition, now),
        }
        if await rows.insert_schedule(session, schedule_id, values, Change("declared", AUTHOR)):
            logger.info("schedule declared", schedule=definition.name, workflow=definition.workflow)
            return None
        return (await lock_schedules(session, [definition.name]))[definition.name]

    async def _check_pages(self, database: Database, definition: ScheduleDefinition, limits: Limits) -> None:
        """Report a schedule that cannot start; the next rounds look again, because a migration may be all that is missing."""
        request = StartRequest(definition.workflow, definition.inputs, author_of(definition.name))
        try:
            await database.author_code.run(request.workflow, lambda session: check_request(session, request, limits))
            async with database.transaction() as session:
                await mark_broken(session, definition.name, None)
            if self._broken.pop(definition.name, None) is not None:
                logger.info("schedule works again", schedule=definition.name, workflow=definition.workflow)
        except WorkflowBusyError:
            return
        except OrchestratorError as error:
            why = (
                f"the form of {definition.workflow!r} has a page more than the schedule fills in"
                if isinstance(error, FormIncompleteError)
                else format_message(error)
            )
            if self._broken.get(definition.name) != why:
                logger.error("schedule is broken", schedule=definition.name, workflow=definition.workflow, reason=why)  # noqa: TRY400
            self._broken[definition.name] = why
            async with database.transaction() as session:
                await mark_broken(session, definition.name, why)
        except Exception as error:
            if is_connection_error(error):
                raise
            # A bug in the engine, about one schedule; the others are still to be checked.
            logger.exception("schedule not checked", schedule=definition.name)


def list_reconciliations(author: str, declared: Iterable[Schedule] | None = None) -> list[Reconciliation]:
    """Return the declarations of this program by their source.

    Args:
        author: names the program.
        declared: default all that were declared.
    """
    found = list(list_declared() if declared is None else declared)
    return [
        Reconciliation(source, {one.definition.name: one.definition for one in found if one.source is source}, author)
        for source in Source
    ]


def _may_work_again(stored: StoredSchedule | None) -> bool:
    """Return whether a broken schedule has the pages of the code, of which this program can say whether they fit."""
    if stored is None or stored.broken is None:
        return False
    return stored.origin == Origin.CODE.value and "inputs" not in stored.touched


async def _update(
    session: AsyncSession,
    stored: StoredSchedule,
    definition: ScheduleDefinition,
    declared: Mapping[str, Any],
    now: datetime,
) -> bool:
    """Make a stored schedule what its declaration says in the fields that no person has changed; return whether it differs."""
    is_removed = stored.deleted_at is not None
    if stored.origin == Origin.PERSON.value and not is_removed:
        logger.warning(
            "schedule not stored: a person has made one of this name; give the declaration another name, or remove that one",
            schedule=stored.name,
        )
        return False
    if stored.origin == Origin.PERSON.value:
        # Nobody has removed the one of the code: it is new.
        change = Change("declared", AUTHOR)
        await apply(
            session, stored, definition, now, change, touched=[], origin=Origin.CODE.value, declared=dict(declared)
        )
        return True
    if stored.declared == declared:
        return False
    if is_removed:
        await rows.update_declared(session, stored.schedule_id, declared)
        return False
    merged = _merge(stored, definition, declared)
    if merged is None:
        await rows.update_declared(session, stored.schedule_id, declared)
        return False
    was_dropped = stored.declared is None
    reason = {"disabled_reason": _DECLARED_SO} if was_dropped and not merged.enabled else {}
    await apply(
        session,
        stored,
        merged,
        now,
        Change("declared again" if was_dropped else "changed", AUTHOR),
        touched=stored.touched,
        declared=dict(declared),
        **reason,
    )
    logger.info("schedule changed as the code declares it", schedule=stored.name)
    return True


def _merge(
    stored: StoredSchedule, definition: ScheduleDefinition, declared: Mapping[str, Any]
) -> ScheduleDefinition | None:
    """Return the declared definition with the fields that a person has changed; ``None`` when the two do not go together."""
    columns = columns_of(stored)
    touched = {name: columns[name] for name in stored.touched}
    try:
        return read_definition(stored.name, {**write_definition(definition), **touched})
    except InvalidInputError as error:
        logger.warning(
            "schedule stays as it is: what the code declares now contradicts what a person has changed",
            schedule=stored.name,
            touched=list(stored.touched),
            reason=str(error),
            declared=declared,
        )
        return None


async def _drop(session: AsyncSession, stored: StoredSchedule) -> None:
    """Disable a schedule that the code declares no longer. A person may enable it, and then keeps it."""
    if stored.deleted_at is not None:
        await rows.update_declared(session, stored.schedule_id, None)
        return
    logger.warning("schedule disabled: the code declares it no longer", schedule=stored.name)
    change = Change("dropped", AUTHOR, NOT_DECLARED)
    await disable(session, stored, NOT_DECLARED, change, touched=stored.touched, declared=None)
