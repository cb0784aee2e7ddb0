"""Every error of the engine, arranged by who must act.

::

    OrchestratorError
    ├ DefinitionError                the author, at import or start-up: the program refuses to start
    │ └ ConnectionLostError          a form, predicate or callback has lost the database connection of its request, twice
    ├ ConfigurationError             the operator: a setting is missing or wrong; the program refuses to start
    ├ ServerUnavailableError         the operator: PostgreSQL or RabbitMQ cannot be reached or refuses us
    ├ RequestError                   the caller
    │ ├ NotFoundError
    │ ├ InvalidInputError
    │ │ └ FormIncompleteError        carries the next page's JSON schema
    │ ├ InvalidQueryError            carries the names that a list knows
    │ ├ QueryTimeoutError
    │ ├ UnauthenticatedError         the HTTP API does not know who sends the request
    │ ├ ForbiddenError
    │ │ └ InsufficientRoleError
    │ └ ConflictError
    │   ├ IllegalTransitionError
    │   ├ StaleVersionError          the caller has read an older version of the subscription
    │   ├ SubscriptionHeldError      an unfinished process holds the subscription's lock
    │   ├ WorkflowNotUsableError     carries the reasons
    │   ├ CallbackRefusedError       a token that is unknown, used, superseded or expired
    │   ├ EnginePausedError
    │   ├ PlanMismatchError        the process has another plan of its workflow than this program
    │   ├ PredicateFailedError
    │   └ WorkflowBusyError          forms, predicates or callbacks of the workflow take long in other requests
    ├ StepError                      the operator: logged on the attempt
    │ ├ ProcessFailureError          raised by authors, with details
    │ ├ CommitNotAllowedError
    │ ├ SessionEndedError            a step's session was used after the step
    │ ├ ConcurrentSessionError       several tasks have used a step's session at once, or a thread of its own
    │ ├ InvalidResultError           a step returned something the state cannot hold
    │ ├ MissingArgumentError         the state lacks what a step requests
    │ ├ UnreadableStateError         the database holds something in the state that cannot be read
    │ ├ StepTimeoutError
    │ ├ ConcurrentChangeError        a subscription was changed between load and save
    │ ├ SubscriptionLockedError      another process holds the subscription's lock
    │ ├ ModelError                   a subscription or block does not fit its model
    │ └ WorkflowChangedError
    ├ MessageError                   no one: the message goes to the dead-letter queue with this text
    ├ PublishError                   no one: the broker did not confirm a message; the reconciler publishes it again
    │ ├ UnroutableError
    │ └ RefusedError                 a queue is full
    └ FencedError                    no one: this attempt was overtaken; roll back and acknowledge

The text of an error says what happened, to which object, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from orchestrator.text import MAX_PROBLEMS, count_more, format_place, format_problem, shorten
from orchestrator.types import JSON


class OrchestratorError(Exception):
    """The root of all errors the engine raises on purpose."""

    lacks_code = False
    """Whether the only obstacle is that this program lacks a workflow or cannot import it, so that another one may have it."""

    def __str__(self) -> str:
        """Return the text. It may quote foreign values, and stands in logs, messages and rows, so it has a limit."""
        return shorten(super().__str__())


class DefinitionError(OrchestratorError):
    """A workflow, step or registration is wrong as written; the program refuses to start."""


class ConnectionLostError(DefinitionError):
    """A form, predicate or authorization callback has lost the database connection of its request, and so once more."""


class ConfigurationError(OrchestratorError):
    """A setting is missing or wrong; the text names the environment variable."""


class ServerUnavailableError(OrchestratorError):
    """PostgreSQL or RabbitMQ cannot be reached, or refuses us; the text names the server and the setting."""


class RequestError(OrchestratorError):
    """The caller requested something that cannot be done; ``key`` is its stable name for programs."""

    key: ClassVar[str] = "request.refused"

    @property
    def reasons(self) -> list[dict[str, JSON]]:
        """Reasons a program can read, each with a stable ``key``."""
        return [{"key": self.key}]


class NotFoundError(RequestError):
    """What the caller named does not exist."""

    key = "not_found"


class InvalidInputError(RequestError):
    """The input does not fit the form; ``errors`` names the first fields and what is wrong with each.

    Args:
        left_out: how many more problems there are than ``errors`` has.
    """

    key = "form.invalid"

    def __init__(self, message: str, errors: Sequence[Mapping[str, Any]] = (), left_out: int = 0) -> None:
        super().__init__(message)
        self.errors: list[dict[str, JSON]] = [
            {"key": "form.invalid", "loc": [*format_place(error.get("loc", ()))], "msg": format_problem(error)}
            for error in errors[:MAX_PROBLEMS]
        ]
        left_out += len(errors) - len(self.errors)
        if left_out:
            self.errors.append({"key": "form.invalid", "loc": [], "msg": count_more(left_out)})

    @property
    def reasons(self) -> list[dict[str, JSON]]:
        """One reason per wrong field."""
        return self.errors or [{"key": self.key}]


class FormIncompleteError(InvalidInputError):
    """The form has another page; ``form`` is its JSON schema, ``meta`` what the page says about itself to user interfaces.

    ``sequence``, for a process that waits for input, is its newest log entry: the one that the form belongs to. For a form that
    changes something it is the edition of it.
    """

    key = "form.incomplete"

    def __init__(self, form: JSON, sequence: int | None = None, *, meta: Mapping[str, Any] | None = None) -> None:
        super().__init__("the form is not complete: send the next page as well; its JSON schema is under 'form'")
        self.form = form
        self.meta = meta
        self.sequence = sequence

    @property
    def reasons(self) -> list[dict[str, JSON]]:
        """The key, with the sequence when there is a process."""
        return [{"key": self.key} if self.sequence is None else {"key": self.key, "sequence": self.sequence}]


class InvalidQueryError(RequestError):
    """A list cannot be sorted, filtered or searched like that; ``allowed`` are the names or values that it knows."""

    key = "query.invalid"

    def __init__(self, message: str, allowed: Sequence[str] = ()) -> None:
        super().__init__(f"{message}; allowed: {', '.join(allowed)}" if allowed else message)
        self.allowed = list(allowed)

    @property
    def reasons(self) -> list[dict[str, JSON]]:
        """The key with what is allowed."""
        return [{"key": self.key, "allowed": list[JSON](self.allowed)}]


class QueryTimeoutError(RequestError):
    """The database took too long to answer a question."""

    key = "query.timeout"


class ForbiddenError(RequestError):
    """The user may not do this."""

    key = "forbidden"


class UnauthenticatedError(RequestError):
    """The caller has not shown who it is; ``error`` is a code of RFC 6750, ``None`` when it has shown nothing."""

    key = "unauthenticated"

    def __init__(self, message: str, error: str | None = None) -> None:
        super().__init__(message)
        self.error = error


class InsufficientRoleError(ForbiddenError):
    """The caller lacks a role that the request needs; ``role`` is that one."""

    key = "role.insufficient"

    def __init__(self, message: str, role: str) -> None:
        super().__init__(message)
        self.role = role

    @property
    def reasons(self) -> list[dict[str, JSON]]:
        """The key with the role."""
        return [{"key": self.key, "role": self.role}]


class ConflictError(RequestError):
    """The request conflicts with the present state; ``details`` are for programs."""

    key = "conflict"

    def __init__(self, message: str, details: Mapping[str, JSON] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})

    @property
    def reasons(self) -> list[dict[str, JSON]]:
        """The key with the details."""
        return [{"key": self.key, **self.details}]


class IllegalTransitionError(ConflictError):
    """A process in this status does not allow that; ``status`` and ``event`` say which."""

    key = "process.illegal_transition"


class PlanMismatchError(ConflictError):
    """The process has another plan of its workflow than this program; only a program with the registered plan moves it."""

    key = "process.other_plan"


class WorkflowNotUsableError(ConflictError):
    """The workflow may not run here and now."""

    def __init__(self, message: str, reasons: Sequence[Mapping[str, JSON]] = ()) -> None:
        super().__init__(message)
        self._reasons = [dict(reason) for reason in reasons]

    @property
    def reasons(self) -> list[dict[str, JSON]]:
        """Why, each with a stable key and the ids concerned."""
        return self._reasons


class StaleVersionError(ConflictError):
    """The caller has looked at an older version of the subscription than there is now; the reason has both."""

    key = "subscription.stale_version"


class SubscriptionHeldError(ConflictError):
    """An unfinished process holds the lock of the subscription; the reason names it."""

    key = "subscription.held_by_process"


class CallbackRefusedError(ConflictError):
    """A callback was not accepted; ``outcome`` is one of unknown, used, superseded, expired."""

    key = "callback.refused"

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class EnginePausedError(ConflictError):
    """The engine is paused; nothing new is started until it is unpaused."""

    key = "engine.paused"


class PredicateFailedError(ConflictError):
    """The workflow's own run predicate refused the start."""

    key = "workflow.predicate_failed"


class WorkflowBusyError(ConflictError):
    """There was no turn: user code takes long in other requests, or a transaction that has not ended has the key."""

    key = "workflow.busy"


class StepError(OrchestratorError):
    """A step failed; the attempt is logged and the process is FAILED or WAITING."""


class ProcessFailureError(StepError):
    """The error for authors to raise: a message for the operator, and details that are logged with it."""

    def __init__(self, message: str, details: JSON = None) -> None:
        super().__init__(message)
        self.details = details


class CommitNotAllowedError(StepError):
    """A step tried to end the transaction that belongs to the engine."""


class SessionEndedError(StepError):
    """A task that a step has left behind uses the step's session after the end of the step."""


class ConcurrentSessionError(StepError):
    """Several tasks of a step have used its session at the same time."""


class InvalidResultError(StepError):
    """A step returned something that is not a dict, cannot be stored as JSON, or is too large."""


class MissingArgumentError(StepError):
    """The state lacks a value that a step requests, or holds one of the wrong type."""


class UnreadableStateError(StepError):
    """The state of a process holds something that cannot be read; the text names the key, and the way out."""


class StepTimeoutError(StepError):
    """A step ran longer than its timeout and was cancelled."""


class ConcurrentChangeError(StepError):
    """A subscription was changed between load and save; a retry loads it again."""


class SubscriptionLockedError(StepError):
    """Another process holds the lock of the subscription."""


class ModelError(StepError):
    """A subscription or block does not fit its model; the text names the field."""


class WorkflowChangedError(StepError):
    """The code of a workflow no longer fits a process that is running."""


class MessageError(OrchestratorError):
    """A message that cannot be understood: malformed, of an unknown type or version, or too large."""


class PublishError(OrchestratorError):
    """The broker did not confirm a message: refused, unroutable, or no answer in time (then the outcome is unknown)."""


class UnroutableError(PublishError):
    """No queue takes the message."""


class RefusedError(PublishError):
    """A queue that the message goes to is full and refuses it."""


class FencedError(OrchestratorError):
    """Another attempt holds the process; nothing of this one may be stored."""
