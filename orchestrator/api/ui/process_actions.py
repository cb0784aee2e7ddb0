"""What operators do to one process: retry, abort, skip, rewind, correct its state, answer its callback, note something."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from starlette.datastructures import FormData
from starlette.responses import Response

from orchestrator.api.bodies import read_json
from orchestrator.api.routes.callbacks import answer, check_answer
from orchestrator.api.ui.page import Page, PageRouter, visit
from orchestrator.authorization import Role
from orchestrator.errors import InvalidInputError
from orchestrator.services import control, notes
from orchestrator.services.callbacks import COMPLETED, FAILED

router = PageRouter()

Operator = Annotated[Page, visit(Role.OPERATE)]


@router.post("/processes/{process_id}/retry")
async def retry(page: Annotated[Page, visit(Role.START)], process_id: UUID) -> Response:
    """Try a failed or waiting process again."""
    seen = _read_seen(await page.form())
    await page.context.change_process(
        process_id, lambda session: control.retry(session, process_id, page.user, page.context.limits, seen=seen)
    )
    return _show(page, process_id)


@router.post("/processes/{process_id}/abort")
async def abort(page: Operator, process_id: UUID) -> Response:
    """End a process."""
    reason = _read_text(await page.form(), "reason") or None
    await page.context.change(
        lambda session: control.abort(session, process_id, page.user, page.context.limits, reason)
    )
    return _show(page, process_id)


@router.post("/processes/{process_id}/skip")
async def skip(page: Operator, process_id: UUID) -> Response:
    """Leave out the step at which a process has failed."""
    form = await page.form()
    reason, seen = _read_text(form, "reason"), _read_seen(form)
    await page.context.change_process(
        process_id, lambda session: control.skip(session, process_id, page.user, reason, page.context.limits, seen=seen)
    )
    return _show(page, process_id)


@router.post("/processes/{process_id}/rewind")
async def rewind(page: Operator, process_id: UUID) -> Response:
    """Take a process back to an earlier step."""
    form = await page.form()
    step, reason, seen = _read_text(form, "step"), _read_text(form, "reason"), _read_seen(form)
    await page.context.change_process(
        process_id,
        lambda session: control.rewind(session, process_id, page.user, step, reason, page.context.limits, seen=seen),
    )
    return _show(page, process_id)


@router.post("/processes/{process_id}/patch")
async def patch(page: Operator, process_id: UUID) -> Response:
    """Correct the state of a process."""
    form = await page.form()
    changes, reason, seen = _read_object(_read_text(form, "set")), _read_text(form, "reason"), _read_seen(form)
    removed = [one.strip() for one in _read_text(form, "remove").splitlines() if one.strip()]
    await page.context.change_process(
        process_id,
        lambda session: control.patch(
            session, process_id, page.user, reason, changes, removed, page.context.limits, seen=seen
        ),
    )
    return _show(page, process_id)


@router.post("/processes/{process_id}/callback")
async def answer_callback(page: Operator, process_id: UUID) -> Response:
    """Answer a callback in place of the external system; as everywhere its token is the permission."""
    form = await page.form()
    token, outcome, written = (_read_text(form, name) for name in ("token", "outcome", "answer"))
    if outcome not in {COMPLETED, FAILED}:
        raise InvalidInputError(f"choose whether the job was {COMPLETED} or has {FAILED}")
    # The token only says for which job: who has answered in its place, the log says.
    note = f"answered by {page.user} on the page"
    await answer(page.context, process_id, token, outcome, check_answer((written or "{}").encode()), note)
    return _show(page, process_id)


@router.post("/processes/{process_id}/note")
async def set_note(page: Operator, process_id: UUID) -> Response:
    """Replace the note on a process; an empty one removes it."""
    note = _read_text(await page.form(), "note") or None
    async with page.context.transaction() as session:
        note = await notes.set_note(session, process_id, note, page.user)
    if page.is_fragment:
        return await page.render("_note.html", head={"note": note, "noted_by": str(page.user)}, is_news=True)
    return _show(page, process_id)


@router.post("/processes/{process_id}/delete")
async def delete(page: Operator, process_id: UUID) -> Response:
    """Delete a finished task."""
    async with page.context.transaction() as session:
        await notes.delete(session, process_id, page.user)
    return page.go("/processes", kind="task")


def _show(page: Page, process_id: UUID) -> Response:
    return page.go(f"/processes/{process_id}")


def _read_text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value.replace("\r\n", "\n").strip() if isinstance(value, str) else ""


def _read_seen(form: FormData) -> int | None:
    """Return the newest entry of the log that the page had; without it an action is about whatever is now."""
    written = _read_text(form, "seen")
    return int(written) if written.isascii() and written.isdigit() and len(written) < 10 else None  # noqa: PLR2004


def _read_object(written: str) -> dict[str, Any]:
    if not written:
        return {}
    try:
        found = read_json(written.encode())
    except ValueError as error:
        raise InvalidInputError(f"the keys to set are not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInputError('the keys to set must be a JSON object, such as {"vlan": 142}')
    return found
