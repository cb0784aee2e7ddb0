"""Other services and people: they start processes, answer what is asked, and repeat whatever was not answered."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from tests.acceptance.client import BROKER_AWAY, CALLBACKS, COMMANDS, Client
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

LIVING = "SELECT process_id, status FROM processes WHERE NOT status IN ('completed', 'aborted')"
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a reader of the database sees while that is away."""
MOST = 25
"""Processes that are under way at the same time."""
THINGS = 4
EVERY = 0.3
"""Seconds between two looks."""
REPEAT_AFTER = 4.0
"""Seconds after which what was not answered is sent again, with the same key."""
WEIGHTS = {"chain": 6, "plain": 2, "asks": 2, "calls_out": 2, "flaky": 2, "parent": 1, "modify_thing": 5}


@dataclass
class Start:
    """A start that somebody has sent, and will send until it is answered."""

    body: dict[str, Any]
    sent_at: float
    times: int = 1


@dataclass
class Load:
    """Runs in a thread of its own until it is stopped; then it starts nothing more, and goes on to answer."""

    engine: Installation
    seed: int
    process_ids: dict[str, UUID] = field(default_factory=dict)
    """What each key has started."""
    refused: int = 0
    repeated: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._client = Client(self.engine.background, self.engine.amqp_url)
        self._waiting: dict[str, Start] = {}
        self._things: list[str] = []
        self._number = 0
        self._last_looked = 0.0
        self._only_answers = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.broken: BaseException | None = None

    def begin(self) -> None:
        """Make the subscriptions that are going to be changed, and then start the thread."""
        product = str(self.engine.value("SELECT product_id FROM products"))
        made = [self.engine.start("create_thing", {"product": product}) for _ in range(THINGS)]
        for one in made:
            self.engine.wait_for(one, "completed")
            self._things.append(self.engine.state(one)["subscription"]["subscription_id"])
        self._thread.start()

    def end(self) -> None:
        """Start nothing more; wait until every start has been answered."""
        self._only_answers.set()
        until(lambda: self.broken or not self._waiting, "every start is answered", every=0.2)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(60)
        self._client.close()

    def unanswered(self) -> list[str]:
        """Return the keys of starts that nobody has answered."""
        return sorted(self._waiting)

    def _run(self) -> None:
        try:
            while not self._closing.wait(EVERY):
                self._read_replies()
                self._repeat()
                self._look()
        except Exception as error:
            self.broken = error

    def _read_replies(self) -> None:
        for key in [key for key in self._waiting if key in self._client._replies]:
            answer = self._client._replies.pop(key)
            del self._waiting[key]
            if answer.type == "workflow.started":
                self.process_ids[key] = UUID(answer.body["process_id"])
            else:
                self.refused += 1

    def _repeat(self) -> None:
        for key, start in self._waiting.items():
            if time.monotonic() - start.sent_at > REPEAT_AFTER:
                self._send_start(key, start)
                self.repeated += 1

    def _look(self) -> None:
        """Do what the rows say is to be done, and keep the number of living processes up."""
        try:
            rows = self.engine.background.run(self._living())
        except AWAY:
            return
        if time.monotonic() - self._last_looked > 1.0:
            self._last_looked = time.monotonic()
            for row in rows:
                self._answer(row["process_id"], row["status"])
        if not self._only_answers.is_set():
            for _ in range(min(3, MOST - len(rows) - len(self._waiting))):
                self._start()

    async def _living(self) -> list[asyncpg.Record]:
        """Return the processes that have not ended, read on a connection of this thread's own."""
        connection = await asyncpg.connect(
            self.engine.database_url.replace("+asyncpg", ""), timeout=3, command_timeout=5
        )
        try:
            return await connection.fetch(LIVING)
        finally:
            connection.terminate()

    def _answer(self, process_id: UUID, status: str) -> None:
        if status in ("suspended", "failed"):
            pages = [{"yes": True}] if status == "suspended" else []
            body = {"process_id": str(process_id), "inputs": pages, "user": "chaos"}
            self._send(COMMANDS, "process.resume", body)
            self.answers[status] += 1
        elif status == "awaiting_callback":
            path = self.engine.lab / f"tokens-{process_id}"
            tokens = path.read_text().split() if path.exists() else []
            for token in tokens * (2 if self._chance.random() < 0.3 else 1):
                self._send(CALLBACKS, "callback.completed", {"ok": True}, correlation_id=token)
                self.answers[status] += 1

    def _start(self) -> None:
        self._number += 1
        (workflow,) = self._chance.choices([*WEIGHTS], [*WEIGHTS.values()])
        inputs = [{"subscription_id": self._chance.choice(self._things)}] if workflow == "modify_thing" else []
        key = f"start-{self._number}"
        self._waiting[key] = start = Start({"workflow": workflow, "inputs": inputs, "user": "chaos"}, 0.0, 0)
        self._send_start(key, start)

    def _send_start(self, key: str, start: Start) -> None:
        start.sent_at = time.monotonic()
        start.times += 1
        self._send(COMMANDS, "workflow.start", start.body, message_id=key, correlation_id=key, wants_reply=True)

    def _send(self, exchange: str, key: str, body: object, **properties: Any) -> None:
        """Publish; whether the broker has taken it or not, it is sent again as long as it is not answered."""
        try:
            self._client.send(exchange, key, body, seconds=5, **properties)
        except (AssertionError, *BROKER_AWAY):
            return
