"""The engine's own tables: workflows, processes and their log, callbacks, consumers, switches."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    Float,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.db.tables.base import Base
from orchestrator.types import JSON


class WorkflowRow(Base):
    """A workflow that may be started. Removing one sets ``deleted_at``; its processes keep pointing at the row."""

    __tablename__ = "workflows"
    __table_args__ = (
        Index("uq_workflows_name", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
        # What products_workflows refers to.
        UniqueConstraint("workflow_id", "target", name="uq_workflows_workflow_id_target"),
    )

    workflow_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str]
    target: Mapped[str]
    is_task: Mapped[bool] = mapped_column(server_default=text("false"))
    description: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]


class PlanRow(Base):
    """A plan of a workflow that a program has registered, or an operator has activated again. Append-only.

    The one with the highest number is the registered plan: only programs that have it move processes to it. ``steps`` is what the
    fingerprint is made of.
    """

    __tablename__ = "workflow_plans"

    workflow: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fingerprint: Mapped[str]
    steps: Mapped[list[dict[str, Any]]]
    registered_by: Mapped[str]
    registered_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ProcessRow(Base):
    """One run of a workflow: the truth about where it stands.

    Columns that need an explanation:
        attempt: the fencing token; every claim raises it.
        base: the part of the state that has not changed lately, ``NULL`` if the state is small; ``base_sequence`` is the log
            entry with which it was written. A key of ``state`` stands for the one of ``base``.
        assignee: who is to act on the process now; ``SYSTEM`` for the engine itself.
        claimed_by: the consumer that runs the present step; only it may commit it.
        due_at: when the reconciler must look again, by the database's clock; ``NULL`` for never.
        wake_at: ``due_at`` of processes at rest, ``NULL`` while they run.
        announce_at: when a coordinator must publish the events after ``announced``; ``NULL`` while that goes by itself.
        dispatches: how often the present command was published again, for growing intervals; negative while it is in no
            queue, because a consumer has dropped it, or it was not published yet.
        published_at: when the present command was last published again; older than ``updated_at`` when it never was.
        announced: up to which log entry the broker has confirmed the events, without a gap.
        plan: the fingerprint of the plan that decides what is next; ``NULL`` when an older engine has stored the row.
        rested_at: ``updated_at`` of processes at rest, ``NULL`` while they run: lists sort by it.
        words: what the row itself can be found by; see :mod:`orchestrator.db.lists.process_search`.
        parent_id: the process one of whose steps has started this one; it may have been deleted since.
        request_key, request_digest: make a repeated start harmless, and a different one under the same key visible.
        note: what an operator wants others to know about the process; ``noted_by`` and ``noted_at`` are about that text.
        is_kept: a clean-up has found that the task has changed subscriptions, so it is kept as part of their history.
    """

    __tablename__ = "processes"
    __table_args__ = (
        # A step rewrites its process's row twice. As long as no indexed column changes – none of these does, while a process is
        # running and its events are confirmed – PostgreSQL keeps the versions on one page and touches no index (a "heap-only
        # tuple").
        Index("ix_processes_running", "process_id", postgresql_where=text("status = 'running'")),
        Index("ix_processes_wake_at", "wake_at", postgresql_where=text("wake_at IS NOT NULL")),
        Index("ix_processes_announce_at", "workflow", "announce_at", postgresql_where=text("announce_at IS NOT NULL")),
        # Lists filter and sort in these, without the rows, which hold states.
        Index(
            "ix_processes_started_at",
            text("started_at DESC"),
            "process_id",
            postgresql_include=["status", "is_task", "workflow_id", "started_by", "assignee"],
        ),
        Index("ix_processes_status", "status", "is_task", text("started_at DESC"), "process_id"),
        Index(
            "ix_processes_rested_at",
            text("rested_at DESC"),
            "process_id",
            postgresql_where=text("rested_at IS NOT NULL"),
        ),
        Index("ix_processes_words", "words", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
        Index("ix_processes_workflow_id", "workflow_id"),
        # What a clean-up may delete, workflow by workflow, and nothing else, however much is kept.
        Index(
            "ix_processes_finished_tasks",
            "workflow_id",
            "rested_at",
            "process_id",
            postgresql_where=text("is_task AND NOT is_kept AND status IN ('completed', 'aborted')"),
        ),
        Index(
            "ix_processes_parent_id",
            "parent_id",
            text("started_at DESC"),
            "process_id",
            postgresql_where=text("parent_id IS NOT NULL"),
        ),
        CheckConstraint("position >= 0 AND attempt >= 0 AND sequence >= 0", name="counters"),
        # Each row is rewritten twice per step; room on its page keeps those versions together.
        {"postgresql_with": {"fillfactor": "70"}},
    )

    process_id: Mapped[UUID] = mapped_column(primary_key=True)
    workflow_id: Mapped[UUID] = mapped_column(ForeignKey("workflows.workflow_id"))
    workflow: Mapped[str]
    is_task: Mapped[bool]
    status: Mapped[str]
    position: Mapped[int]
    step: Mapped[str | None]
    entered: Mapped[bool]
    attempt: Mapped[int]
    sequence: Mapped[int]
    failures: Mapped[int]
    lost: Mapped[int]
    interruptions: Mapped[int] = mapped_column(server_default=text("0"))
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    rewinds: Mapped[int]
    state: Mapped[dict[str, Any]]
    base: Mapped[dict[str, Any] | None]
    base_sequence: Mapped[int | None]
    started_by: Mapped[str]
    parent_id: Mapped[UUID | None]
    actor: Mapped[str]
    assignee: Mapped[str] = mapped_column(server_default="SYSTEM")
    plan: Mapped[str | None]
    request_key: Mapped[str | None] = mapped_column(unique=True)
    request_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    claimed_by: Mapped[UUID | None]
    claimed_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    wake_at: Mapped[datetime | None]
    dispatches: Mapped[int] = mapped_column(server_default=text("0"))
    announced: Mapped[int] = mapped_column(server_default=text("0"))
    announce_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    note: Mapped[str | None]
    noted_by: Mapped[str | None]
    noted_at: Mapped[datetime | None]
    is_kept: Mapped[bool] = mapped_column(server_default=text("false"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    rested_at: Mapped[datetime | None] = mapped_column(
        # As PostgreSQL writes it: a comparison with the migrations would otherwise find a difference.
        Computed(
            "CASE WHEN status <> 'running'::text THEN updated_at ELSE NULL::timestamp with time zone END",
            persisted=True,
        )
    )
    words: Mapped[str | None] = mapped_column(
        TSVECTOR(),
        Computed(
            "search_words(left(started_by, 1000) || ' '::text || left(COALESCE(note, ''::text), 4000))", persisted=True
        ),
    )


class DeletedProcessRow(Base):
    """A finished task that a person has deleted with its log, and who that was. Append-only; a clean-up deletes old ones."""

    __tablename__ = "deleted_processes"
    __table_args__ = (Index("ix_deleted_processes_deleted_at", "deleted_at"),)

    process_id: Mapped[UUID] = mapped_column(primary_key=True)
    workflow: Mapped[str]
    status: Mapped[str]
    started_by: Mapped[str]
    started_at: Mapped[datetime]
    deleted_by: Mapped[str]
    deleted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LogRow(Base):
    """One entry of a process's log: an attempt of a step, or something done to the process. Append-only.

    The full state after any entry is the fold of ``delta`` (merged over) and ``removed`` (taken away) up to it. ``txid`` is the
    transaction that has stored it, by which event streams find what was committed since; entries of before have none.
    """

    __tablename__ = "process_steps"
    __table_args__ = (Index("ix_process_steps_txid", "txid", postgresql_where=text("txid IS NOT NULL")),)

    process_id: Mapped[UUID] = mapped_column(ForeignKey("processes.process_id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    name: Mapped[str]
    position: Mapped[int | None]
    attempt: Mapped[int]
    status: Mapped[str]
    delta: Mapped[dict[str, Any]]
    removed: Mapped[list[str] | None]
    failure: Mapped[dict[str, Any] | None]
    note: Mapped[str | None]
    author: Mapped[str]
    consumer: Mapped[str | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime]
    txid: Mapped[int | None] = mapped_column(BigInteger, server_default=text("(pg_current_xact_id()::text)::bigint"))


class CommandRow(Base):
    """A command about a process that was carried out, by the key that makes repeating it harmless. Append-only.

    ``sequence`` is the first log entry that came of it, ``digest`` makes a different command under the same key visible.
    """

    __tablename__ = "process_commands"

    process_id: Mapped[UUID] = mapped_column(ForeignKey("processes.process_id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    sequence: Mapped[int]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class CallbackRow(Base):
    """A callback token and what became of it.

    ``token`` holds the plaintext only until the action has committed: until then the action may have to run again and the
    job of the lost run must still be able to answer. Afterwards only the SHA-256 remains.
    """

    __tablename__ = "callbacks"
    __table_args__ = (
        Index(
            "uq_callbacks_current",
            "process_id",
            unique=True,
            postgresql_where=text("status IN ('open', 'parked')"),
        ),
        Index("ix_callbacks_process_id", "process_id"),
    )

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    token: Mapped[str | None]
    process_id: Mapped[UUID] = mapped_column(ForeignKey("processes.process_id", ondelete="CASCADE"))
    position: Mapped[int]
    step: Mapped[str]
    status: Mapped[str]
    timeout: Mapped[float | None] = mapped_column(Float)
    deadline: Mapped[datetime | None]
    outcome: Mapped[str | None]
    payload: Mapped[JSON | None] = mapped_column(JSONB(none_as_null=True))
    progress: Mapped[JSON | None] = mapped_column(JSONB(none_as_null=True))
    progress_count: Mapped[int] = mapped_column(server_default=text("0"))
    progress_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    received_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]


class ConsumerRow(Base):
    """A step consumer, the time of its last heartbeat, and how many seconds after it others presume the consumer dead.

    Columns that need an explanation:
        knows: workflow → the fingerprint of its plan, of the workflows that it can run; ``NULL`` when it has not reported.
        broken: workflow → why it cannot be run there.
        revisions: the newest migrations that its code has; ``NULL`` when it has not reported.
        received: step queue → how new the newest command is that it has received; ``NULL`` when it does not report.
        held: the processes whose commands it has received and not yet claimed.
        threads_left_behind: threads whose plain function goes on although its step has ended.
    """

    __tablename__ = "consumers"

    consumer_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    queues: Mapped[list[str]]
    concurrency: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_interval: Mapped[float] = mapped_column(Float, server_default=text("2"))
    presumed_dead_after: Mapped[float] = mapped_column(Float, server_default=text("10"))
    responsive_at: Mapped[datetime | None]
    blocked_by: Mapped[JSON | None] = mapped_column(JSONB(none_as_null=True))
    knows: Mapped[dict[str, str] | None] = mapped_column(JSONB(none_as_null=True))
    broken: Mapped[dict[str, str] | None] = mapped_column(JSONB(none_as_null=True))
    revisions: Mapped[list[str] | None]
    received: Mapped[dict[str, str] | None] = mapped_column(JSONB(none_as_null=True))
    held: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    threads_left_behind: Mapped[int] = mapped_column(server_default=text("0"))


class EngineSettingsRow(Base):
    """The one row of engine-wide switches."""

    __tablename__ = "engine_settings"
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    global_lock: Mapped[bool] = mapped_column(server_default=text("false"))
    changed_by: Mapped[str] = mapped_column(server_default="")
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    reason: Mapped[str | None]


class SettingsChangeRow(Base):
    """Who paused and unpaused the engine, when and why. Append-only."""

    __tablename__ = "engine_settings_log"

    change_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    global_lock: Mapped[bool]
    author: Mapped[str]
    reason: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class DeadLetterRow(Base):
    """A message that could not be used, moved here from the queue of dead letters. Closed by a replay or discarded.

    Columns that need an explanation:
        digest: by it a letter that the broker delivers twice is kept once.
        properties: what the sender has set, headers included; ``packed_headers`` has these as AMQP does, for a replay.
        token_hash: the SHA-256 of a callback's token, instead of the token.
        process_id: of a process that may not exist: it is what the message says.
        outcome: ``replayed`` or ``discarded``; ``NULL`` while it is open.
        unhandled: whether a coordinator is to put it back by itself: the broker has given it up before one has handled it.
        begun: how often a program has begun to handle the message after it was put back.
    """

    __tablename__ = "dead_letters"
    __table_args__ = (
        CheckConstraint("(outcome IS NULL) = (closed_at IS NULL)", name="closed"),
        Index("ix_dead_letters_open", text("died_at DESC"), "letter_id", postgresql_where=text("closed_at IS NULL")),
        Index("ix_dead_letters_closed_at", "closed_at", postgresql_where=text("closed_at IS NOT NULL")),
        Index("ix_dead_letters_digest", "digest"),
        Index("ix_dead_letters_unhandled", "died_at", postgresql_where=text("unhandled AND closed_at IS NULL")),
    )

    letter_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    died_at: Mapped[datetime]
    reason: Mapped[str]
    queue: Mapped[str]
    exchange: Mapped[str]
    routing_key: Mapped[str]
    process_id: Mapped[UUID | None]
    workflow: Mapped[str | None]
    step: Mapped[str | None]
    token_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    properties: Mapped[dict[str, Any]]
    packed_headers: Mapped[bytes | None] = mapped_column(LargeBinary)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    outcome: Mapped[str | None]
    closed_at: Mapped[datetime | None]
    closed_by: Mapped[str | None]
    unhandled: Mapped[bool] = mapped_column(server_default=text("false"))
    begun: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
