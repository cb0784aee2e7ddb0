"""The form by which people make a schedule: the task, its own pages, the kind of trigger, the time, and what follows from it.

Its result is the body of the request that then stores the schedule. Nothing is stored here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, cast

from pydantic import ConfigDict, Field, create_model
from pydantic_forms.validators import Choice, Timestamp, migration_summary
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.authorization import Action, Attempted
from orchestrator.db.hook_session import face
from orchestrator.db.schedules.rows import find_by_name
from orchestrator.db.workflows import RegisteredTask, list_tasks
from orchestrator.engine.cron import FIELDS, check_expression
from orchestrator.engine.schedule import MISSED_LIMIT, Missed, Overlap, ScheduleDefinition, write_trigger
from orchestrator.engine.schedule_check import check_coming
from orchestrator.engine.slot_preview import preview_slots
from orchestrator.engine.trigger_input import UNITS, build_trigger
from orchestrator.engine.triggers import Trigger
from orchestrator.engine.zones import find_zone
from orchestrator.errors import FormIncompleteError, InvalidInputError
from orchestrator.forms import ComposedForm, FormPage, Pages, SubmitFormPage, continue_form
from orchestrator.registry import known_workflows, plan_of
from orchestrator.services.hooks import authorize, check_pages, run_form
from orchestrator.types import State

SHOWN: Final = 5
"""Coming slots that the last page shows."""

_WHAT: Final = "the form of a schedule"


class TriggerKind(Choice):
    """When the task runs."""

    CRON = "cron", "at times of day or in a rhythm (cron)"
    INTERVAL = "interval", "whenever a time has passed (interval)"
    DATE = "date", "once (date)"


class OverlapChoice(Choice):
    """What happens at a time at which the run before is still going on."""

    SKIP = Overlap.SKIP.value, "this time is left out"
    QUEUE = Overlap.QUEUE.value, "it runs once that one has ended"
    ALLOW = Overlap.ALLOW.value, "it runs beside that one"


class MissedChoice(Choice):
    """What happens to times at which the orchestrator did not run."""

    ONCE = Missed.ONCE.value, "it runs once afterwards"
    SKIP = Missed.SKIP.value, "nothing: the next time counts"
    ALL = Missed.ALL.value, "each is made up for"


class IntervalUnit(Choice):
    """What an interval is counted in."""

    WEEKS = "weeks"
    DAYS = "days"
    HOURS = "hours"
    MINUTES = "minutes"
    SECONDS = "seconds"


_Start = Annotated[Timestamp | None, Field(title="Start", description="Not before it; without it from now on.")]
_End = Annotated[Timestamp | None, Field(title="End", description="Not after it; without it for ever.")]


class TimePage(FormPage):
    """Asks when a schedule is due."""

    def trigger_kwargs(self) -> dict[str, object]:
        """Return the fields of the trigger as the API names them."""
        raise NotImplementedError


class _BoundedPage(TimePage):
    def _bounds(self) -> dict[str, object]:
        bounds = {name: getattr(self, name) for name in ("start_date", "end_date")}
        return {name: _write_time(name, at) for name, at in bounds.items() if at is not None}


class CronPage(_BoundedPage):
    """Asks for a cron expression and its zone."""

    model_config = ConfigDict(title="Time")

    cron: str = Field(
        "0 3 * * *", title="Cron", description="Minute, hour, day of month, month, day of week; 0 and 7 are Sunday."
    )
    zone: str = Field("UTC", title="Time zone", description="An IANA name, such as Europe/Amsterdam.")
    start_date: _Start = None
    end_date: _End = None

    def trigger_kwargs(self) -> dict[str, object]:
        """Return the fields of the expression, and the bounds."""
        try:
            written = check_expression(self.cron)
        except InvalidInputError as error:
            raise _invalid("cron", str(error)) from error
        return {**dict(zip(FIELDS, written.split(), strict=True)), **self._bounds()}


class IntervalPage(_BoundedPage):
    """Asks for an interval."""

    model_config = ConfigDict(title="Time")

    every: int = Field(1, ge=1, title="Every", description="Elapsed time: the wall time moves when the clock changes.")
    unit: IntervalUnit = Field(IntervalUnit.DAYS, title="Unit")
    start_date: _Start = None
    end_date: _End = None

    def trigger_kwargs(self) -> dict[str, object]:
        """Return the interval and the bounds."""
        return {self.unit.value: self.every, **self._bounds()}


class _DatePage(TimePage):
    model_config = ConfigDict(title="Time")

    run_date: Timestamp = Field(title="Time", description="When the task runs, once.")

    def trigger_kwargs(self) -> dict[str, object]:
        """Return the time."""
        return {"run_date": _write_time("run_date", self.run_date)}


TIME_PAGES: Final[Mapping[TriggerKind, type[TimePage]]] = {
    TriggerKind.CRON: CronPage,
    TriggerKind.INTERVAL: IntervalPage,
    TriggerKind.DATE: _DatePage,
}
"""The page that asks for the time, for each kind of trigger."""

_PLACES: Final = {"interval": "every", **dict.fromkeys(UNITS, "every")}
"""The fields of pages for those of triggers, where they have other names."""


async def fill_schedule_form(session: AsyncSession, pages: Sequence[State], user: str, now: datetime) -> State:
    """Return the body of the request that makes the schedule which these pages describe.

    Args:
        user: who fills it in; he must be allowed to start the task.
        now: from which on the coming slots are shown.

    Raises:
        FormIncompleteError: there is another page.
        InvalidInputError: the pages do not fit; the errors name the fields of the page.
        ForbiddenError: the user may not start the task.
        DefinitionError: the task's module or form is broken.
    """
    check_pages(pages)
    form = _Form(pages, user, now)
    try:
        return await run_form(form.make, {"session": session}, pages, _WHAT)
    except FormIncompleteError as error:
        # The last page of the task's own form is not the last one here.
        raise FormIncompleteError(error.form, meta={**(error.meta or {}), "hasNext": not form.is_last}) from error


class _Form:
    """One walk through the form."""

    def __init__(self, pages: Sequence[State], user: str, now: datetime) -> None:
        self._pages = pages
        self._user = user
        self._now = now
        self.is_last = False
        """Whether the page that is shown is the last one."""

    async def make(self, session: AsyncSession) -> ComposedForm:
        """Return the form."""
        return ComposedForm(functools.partial(self._fill, session))

    async def _fill(self, session: AsyncSession, pages: Pages) -> State:
        tasks = await self._list_tasks(session)
        chosen = pages.fill(_make_task_page(tasks))
        task = tasks[cast("Any", chosen).task.value]
        plan = plan_of(task.name)
        attempted = Attempted(self._user, task.name, None, Action.START)
        await authorize(plan.authorizer(Action.START), attempted, session)
        if (form := plan.workflow.initial_input_form) is not None:
            arguments = plan.form.fill({}, {"state": {}, "session": face(session, form)})
            await continue_form(form, arguments, pages, f"the form of {task.name!r}")
        own = pages.taken - 1
        named = cast("Any", pages.fill(_make_kind_page(task)))
        if await find_by_name(session, named.name) is not None:
            raise _invalid("name", "there is a schedule of this name already")
        timed = pages.fill(TIME_PAGES[named.kind])
        assert isinstance(timed, TimePage)  # noqa: S101 - it is what was filled
        kwargs = timed.trigger_kwargs()
        zone = timed.zone if isinstance(timed, CronPage) else "UTC"
        trigger = make_trigger(named.kind, kwargs, zone, self._now)
        self.is_last = True
        last = cast("Any", pages.fill(make_last_page(LastPage, trigger, zone, self._now)))
        missed, overlap = Missed(last.missed.value), Overlap(last.overlap.value)
        # Policies may contradict each other.
        ScheduleDefinition(named.name, task.name, trigger, missed=missed, overlap=overlap)
        return {
            "scheduled_type": "create",
            "name": named.name,
            "workflow_id": str(task.workflow_id),
            "workflow_name": task.name,
            "trigger": named.kind.value,
            "trigger_kwargs": kwargs,
            "zone": zone,
            "user_inputs": list(self._pages[1 : own + 1]),
            "overlap": overlap.value,
            "missed": missed.value,
        }

    async def _list_tasks(self, session: AsyncSession) -> dict[str, RegisteredTask]:
        """Return the tasks that this program knows, by their ids."""
        known = set(known_workflows())
        found = [one for one in await list_tasks(session) if one.name in known]
        if not found:
            raise InvalidInputError("there is no task to schedule: a migration registers tasks, as it does workflows")
        return {str(one.workflow_id): one for one in found}


def make_trigger(
    kind: TriggerKind,
    kwargs: Mapping[str, object],
    zone: str,
    now: datetime,
    present: Mapping[str, object] | None = None,
) -> Trigger:
    """Return the trigger that the page for the time asks for.

    Args:
        present: the stored trigger of a schedule. What stays as it is needs no slot to come.

    Raises:
        InvalidInputError: it is none, or has no slots any more; the error names the field of the page.
    """
    try:
        trigger = build_trigger(kind.value, kwargs, zone=find_zone(zone), now=now)
        if write_trigger(trigger) != present:
            check_coming(trigger, now)
    except InvalidInputError as error:
        field = str(error.errors[0]["loc"][0]) if error.errors else ""  # type: ignore[index]
        raise _invalid(_PLACES.get(field, field), str(error)) from error
    return trigger


def make_last_page(page: type[FormPage], trigger: Trigger, zone: str, now: datetime) -> type[FormPage]:
    """Return a page with the next runs above its fields."""
    slots = preview_slots(trigger, find_zone(zone), now, SHOWN)
    columns = {
        zone: [f"{one.local:%a %Y-%m-%d %H:%M:%S %z}" for one in slots],
        "UTC": [f"{one.at:%Y-%m-%d %H:%M:%S}" for one in slots],
        "Remark": ["; ".join(one.remarks) for one in slots],
    }
    table = migration_summary(
        {
            "headers": list(columns),
            "labels": [str(number) for number in range(1, len(slots) + 1)],
            "columns": [list(column) for column in columns.values()],
        }
    )
    shown = (cast("Any", table), Field(None, title="The next runs"))
    return create_model("LastPage", __base__=page, next_runs=shown)


class LastPage(SubmitFormPage):
    """Shows the next runs, and asks what becomes of those that cannot run as planned."""

    model_config = ConfigDict(title="The next runs")

    overlap: OverlapChoice = Field(OverlapChoice.SKIP, title="If the run before is still going on")
    missed: MissedChoice = Field(
        MissedChoice.ONCE,
        title="After an outage",
        description=f"If each time is made up for: the newest {MISSED_LIMIT} at most.",
    )


def _make_task_page(tasks: Mapping[str, RegisteredTask]) -> type[FormPage]:
    options = {
        key: (key, f"{one.name}: {one.description}" if one.description else one.name) for key, one in tasks.items()
    }
    choice = Choice.__call__("Task", options)
    return create_model("TaskPage", __base__=_TaskPage, task=(cast("Any", choice), Field(title="Task")))


class _TaskPage(FormPage):
    model_config = ConfigDict(title="Task")


def _make_kind_page(task: RegisteredTask) -> type[FormPage]:
    name = (str, Field(task.description or task.name, title="Name", min_length=1, max_length=200))
    kind = (TriggerKind, Field(TriggerKind.CRON, title="It runs"))
    return create_model("KindPage", __base__=_KindPage, name=name, kind=kind)


class _KindPage(FormPage):
    model_config = ConfigDict(title="Schedule")


def _write_time(name: str, at: int) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        raise _invalid(name, "is not a time: seconds since 1970") from None


def _invalid(field: str, problem: str) -> InvalidInputError:
    return InvalidInputError(f"{_WHAT}: {problem}", [{"loc": (field,), "msg": problem, "type": "value_error"}])
