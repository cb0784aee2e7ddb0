"""Read a process over HTTP, for those who follow it without a way to the servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import httpx

from orchestrator.db.callbacks import CallbackProgress
from orchestrator.db.lookup import choose, read_beginning
from orchestrator.db.processes.newest import ProcessSummary
from orchestrator.engine.log import LogEntry
from orchestrator.errors import ForbiddenError, NotFoundError, RequestError, ServerUnavailableError
from orchestrator.operations.explanation import Explanation, Kind
from orchestrator.types import JSON

LOOK_EVERY: Final = 5.0
"""Seconds after which the process is read although no event came."""

PATIENCE: Final = 20.0
"""Seconds for an answer, and between two signs of life of the stream."""

_ERRORS: Final = {401: ForbiddenError, 403: ForbiddenError, 404: NotFoundError}
_AWAY: Final = (502, 503, 504)


class RemoteProcess:
    """A process behind an API."""

    def __init__(self, client: httpx.AsyncClient, process_id: UUID) -> None:
        self._client = client
        self._process_id = process_id
        self._document: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self.server = _name(client)

    async def read(self, known: int) -> tuple[ProcessSummary, list[LogEntry]]:
        """Return the process, and the entries of its log after number ``known``."""
        self._changed.clear()
        self._document = found = await self._get("")
        entries = [_read_entry(one) for one in found["steps"] if one["sequence"] is not None]
        return _read_summary(found), [one for one in entries if one.sequence > known]

    async def wait(self) -> None:
        """Wait for an event of the process, or a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                await self._changed.wait()

    async def explain(self) -> Explanation:
        """Return why the process does not go on."""
        found = await self._get("/explain")
        return Explanation(Kind(found["kind"]), found["summary"], tuple(found["details"]), found["data"])

    async def read_form(self) -> JSON:
        """Return the form that the process waits for, if the API can make it."""
        form: JSON = self._document["form"]
        return form

    async def read_callback(self) -> CallbackProgress | None:
        """Return what is known of the callback that the process waits for."""
        found = self._document["callback"]
        if found is None:
            return None
        return CallbackProgress(
            found["step"],
            found["status"],
            found["progress"],
            _time(found["deadline"]),
            datetime.fromisoformat(found["created_at"]),
        )

    def is_outage(self, error: Exception) -> bool:
        """Return whether an error means that the API, or its database, is away."""
        return isinstance(error, ServerUnavailableError)

    async def listen(self) -> None:
        """Note that something has happened, by the stream of events, until this is cancelled.

        What happens while there is no stream is seen by those who look from time to time.
        """
        while True:
            with contextlib.suppress(httpx.HTTPError):
                async with self._client.stream(
                    "GET", "/api/events", params={"process": str(self._process_id)}
                ) as stream:
                    if stream.is_success:
                        async for line in stream.aiter_lines():
                            if line:
                                self._changed.set()
            await asyncio.sleep(LOOK_EVERY)

    async def _get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = await _get(self._client, f"/api/processes/{self._process_id}{path}")
        return found


@asynccontextmanager
async def open_remote(url: str, api_key: str | None, written: str) -> AsyncIterator[RemoteProcess]:
    """Open a process behind an API, and listen to its events meanwhile.

    Args:
        api_key: a key or a token; ``None`` when the API asks for none.
        written: the process's id, or how it begins.

    Raises:
        InvalidInputError: that cannot be the beginning of an id.
        NotFoundError, ConflictError: no process has it, or several have.
        ServerUnavailableError.
    """
    digits = read_beginning(written, "process")
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE) as client:
        process = RemoteProcess(client, await _find(client, digits, written))
        listening = asyncio.create_task(process.listen())
        try:
            yield process
        finally:
            listening.cancel()
            await asyncio.wait({listening})


async def _find(client: httpx.AsyncClient, digits: str, written: str) -> UUID:
    # For a whole id as well: an address that is wrong is refused at once, not after the patience with an API that is followed.
    found = await _get(client, "/api/processes", filter=f"process_id,{digits}", sort="process_id,asc", range="0,2")
    return choose([UUID(one["process_id"]) for one in found], written, "process", "processes")


async def _get(client: httpx.AsyncClient, path: str, **parameters: str) -> Any:
    try:
        answer = await client.get(path, params=parameters)
    except httpx.HTTPError as error:
        raise ServerUnavailableError(
            f"{_name(client)} cannot be reached: {str(error) or type(error).__name__}"
        ) from error
    if answer.is_success:
        return answer.json()
    with contextlib.suppress(ValueError):
        problem = answer.json()
        if isinstance(problem, dict) and "detail" in problem:
            raise _build_error(answer.status_code, str(problem["detail"]))
    raise _build_error(answer.status_code, f"{_name(client)} answers {answer.status_code} {answer.reason_phrase}")


def _name(client: httpx.AsyncClient) -> str:
    return f"the API at {client.base_url.host}"


def _build_error(status: int, text: str) -> Exception:
    if status in _AWAY:
        return ServerUnavailableError(text)
    return _ERRORS.get(status, RequestError)(text)


def _read_entry(found: Mapping[str, Any]) -> LogEntry:
    started, finished = (datetime.fromisoformat(found[name]) for name in ("started_at", "completed_at"))
    return LogEntry(
        found["sequence"],
        found["kind"],
        found["name"],
        found["position"],
        found["attempt"],
        found["status"],
        found["state_delta"],
        tuple(found["removed"] or ()),
        found["failure"],
        found["note"],
        found["created_by"],
        found["consumer"],
        started,
        finished,
    )


def _read_summary(found: Mapping[str, Any]) -> ProcessSummary:
    return ProcessSummary(
        process_id=UUID(found["process_id"]),
        workflow=found["workflow_name"],
        is_task=found["is_task"],
        status=found["last_status"],
        step=found["last_step"],
        sequence=found["sequence"],
        started_by=found["created_by"],
        actor=found["actor"],
        started_at=datetime.fromisoformat(found["started_at"]),
        updated_at=datetime.fromisoformat(found["last_modified_at"]),
        claimed=found["claimed"],
        due_at=_time(found["due_at"]),
        assignee=found["assignee"],
        note=found["note"],
        noted_by=found["noted_by"],
        noted_at=_time(found["noted_at"]),
        parent_id=None if found["parent_id"] is None else UUID(found["parent_id"]),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
