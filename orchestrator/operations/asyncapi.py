"""Build the AsyncAPI 3 document of all messages that other systems send to the engine or get from it.

The schemas are those by which the engine reads and writes the messages, so that the document cannot differ from what it does.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from orchestrator import __version__
from orchestrator.broker.dead_letters import DIED_AT, EXCHANGE, LETTER_ID, QUEUE, REASON, ROUTING_KEY
from orchestrator.broker.topology import EXCHANGES, Exchanges
from orchestrator.db.hook_session import NoSession
from orchestrator.errors import DefinitionError, FormIncompleteError, NotFoundError, OrchestratorError
from orchestrator.messages import (
    AbortProcess,
    Accepted,
    MessageType,
    ProcessEvent,
    Refused,
    ResumeProcess,
    StartReply,
    StartWorkflow,
    StepEvent,
)
from orchestrator.query_messages import (
    BacklogFound,
    GetBacklog,
    GetProcess,
    GetSubscription,
    ListWorkflows,
    ProcessFound,
    SubscriptionFound,
    WorkflowsListed,
)
from orchestrator.registry import known_workflows, plan_of
from orchestrator.services.hooks import run_form
from orchestrator.workflow import Workflow

_MODELS: Final[tuple[type[BaseModel], ...]] = (
    StartWorkflow,
    ResumeProcess,
    AbortProcess,
    GetProcess,
    GetSubscription,
    ListWorkflows,
    GetBacklog,
    StartReply,
    Accepted,
    Refused,
    ProcessFound,
    SubscriptionFound,
    WorkflowsListed,
    BacklogFound,
    ProcessEvent,
    StepEvent,
)
_SCHEMAS: Final = "#/components/schemas/"
_ID: Final = "aac190d6-84fe-4ff7-b54b-aa21201d7d0e"
_OTHER: Final = "da4125ae-c49e-4af5-865c-88d23d97b726"
_AT: Final = "2026-11-23T07:05:11.442785Z"
_EVENT: Final = {
    "process_id": _ID,
    "workflow": "create_port",
    "target": "CREATE",
    "is_task": False,
    "status": "completed",
    "sequence": 7,
    "at": _AT,
    "user": "crm",
    "subscription_ids": [_OTHER],
}
_REPLIES: Final[Mapping[str, tuple[MessageType, type[BaseModel], str, dict[str, Any]]]] = {
    "started": (
        MessageType.STARTED,
        StartReply,
        "The process; `created` is false when the same start was sent before.",
        {"process_id": _ID, "created": True},
    ),
    "resumed": (MessageType.RESUMED, Accepted, "The input was taken.", {"process_id": _ID, "status": "running"}),
    "aborted": (MessageType.ABORTED, Accepted, "The process has ended.", {"process_id": _ID, "status": "aborted"}),
    "processFound": (MessageType.PROCESS, ProcessFound, "A process with its log and state.", {}),
    "subscriptionFound": (MessageType.SUBSCRIPTION, SubscriptionFound, "A subscription with its blocks.", {}),
    "workflowsListed": (MessageType.WORKFLOWS, WorkflowsListed, "The workflows.", {"workflows": []}),
    "backlogFound": (
        MessageType.BACKLOG,
        BacklogFound,
        "How many starts wait.",
        {"starts": 3817, "coordinators": 2, "per_second": 61.3, "seconds": 31.5},
    ),
    "refused": (
        MessageType.REFUSED,
        Refused,
        "The command or query was not carried out; `reasons` says why for programs, `form` is the next page's schema.",
        {
            "error": "NotFoundError",
            "detail": "there is no process",
            "reasons": [{"key": "not_found"}],
            "form": None,
        },
    ),
}
_COMMANDS: Final = {
    "resumeProcess": ("process.resume", "resume", "resumed"),
    "abortProcess": ("process.abort", "abort", "aborted"),
    "getProcess": ("process.get", "getProcess", "processFound"),
    "getSubscription": ("subscription.get", "getSubscription", "subscriptionFound"),
    "listWorkflows": ("workflow.list", "listWorkflows", "workflowsListed"),
    "getBacklog": ("backlog.get", "getBacklog", "backlogFound"),
}
_CALLBACKS: Final[Mapping[str, tuple[str, str, dict[str, Any]]]] = {
    "callbackCompleted": ("callback.completed", "The job is done; the body is its result.", {"port": "1/1"}),
    "callbackFailed": ("callback.failed", "The job has failed; `error` says why.", {"error": "no such port"}),
    "callbackProgress": ("callback.progress", "How far the job is; the body is shown to people.", {"percent": 40}),
}
_FURTHER: Final = (
    "The pages that follow depend on those before them: the refusal of a start without them has the next one's schema."
)
_DYNAMIC: Final = (
    "The first page of this form is made from what the database holds, so it is not known before a start: send one without"
    " inputs, and the refusal has its schema."
)
_BROKEN: Final = "The module of this workflow cannot be imported by the program that has written this document."


class _DatabaseNeededError(OrchestratorError):
    """A form has used the database before its first page."""


async def build_document() -> dict[str, Any]:
    """Return the document for the workflows that this program's code registers.

    Forms are run up to their first page, without a database.
    """
    schemas = _model_schemas()
    names = list(known_workflows())
    starts = {_component(name): await _start_message(name, schemas) for name in names}
    if not starts:
        starts = {"anyWorkflow": _message(MessageType.START, "Start a workflow", "StartWorkflow", _start_example("…"))}
    messages = {f"start.{name}": message for name, message in starts.items()} | _other_messages()
    channels = _channels(list(starts))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "orchestrator",
            "version": __version__,
            "description": (
                "Start and change processes, answer callbacks, ask, and follow events over RabbitMQ. Messages are JSON,"
                " persistent, and published with confirms. Unknown fields are refused."
            ),
        },
        "servers": {
            "rabbitmq": {
                "host": "rabbitmq.example:5672",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "The RabbitMQ of ORCHESTRATOR_AMQP_URL; its address and the account are given by its operator.",
            }
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": _operations(channels),
        "components": {"schemas": schemas, "messages": messages},
    }


def _model_schemas() -> dict[str, Any]:
    _, found = models_json_schema(
        [(model, "validation" if model in _MODELS[:6] else "serialization") for model in _MODELS],
        ref_template=_SCHEMAS + "{model}",
        schema_generator=GenerateJsonSchema,
    )
    schemas: dict[str, Any] = found["$defs"]
    schemas["Headers"] = {
        "type": "object",
        "properties": {
            "workflow": {"type": "string"},
            "step": {"type": "string"},
            "traceparent": {"type": "string", "description": "W3C trace context; a process is one trace."},
        },
    }
    schemas["Object"] = {"type": "object"}
    schemas["Letter"] = {"description": "The body of the message that could not be used, whatever it is."}
    added = (REASON, QUEUE, EXCHANGE, ROUTING_KEY, DIED_AT, LETTER_ID)
    schemas["LetterHeaders"] = {
        "type": "object",
        "description": "The sender's headers, and these; the broker's own letters have x-death instead.",
        "properties": {name: {"type": "string"} for name in added},
    }
    return schemas


async def _start_message(name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the message that starts a workflow, and add the schema of its body."""
    key, example, words = _component(name), _start_example(name), ""
    inputs: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
    try:
        workflow = plan_of(name).workflow
        words = workflow.description
        if workflow.initial_input_form is None:
            inputs = {"type": "array", "maxItems": 0, "description": "This workflow has no form."}
        else:
            inputs, example = await _describe_form(workflow, key, schemas, example)
    except (DefinitionError, NotFoundError):
        inputs["description"] = _BROKEN
    general = schemas["StartWorkflow"]
    schemas[f"Start.{key}"] = {
        **general,
        "title": f"Start {name}",
        "properties": {**general["properties"], "workflow": {"const": name}, "inputs": inputs},
    }
    return _message(MessageType.START, f"Start {name}", f"Start.{key}", example, words)


async def _describe_form(
    workflow: Workflow, key: str, schemas: dict[str, Any], example: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    form = workflow.initial_input_form
    assert form is not None  # noqa: S101 - the caller has checked
    known = {"state": {}, "session": NoSession(_DatabaseNeededError("the form uses the database"))}
    names = inspect.signature(form).parameters
    try:
        if not set(names) <= set(known):
            raise _DatabaseNeededError("the form asks for a model")
        await run_form(form, {name: known[name] for name in names}, [], f"the form of {workflow.name!r}")
    except FormIncompleteError as error:
        if not isinstance(error.form, dict):
            return {"type": "array", "items": {"type": "object"}}, example
        schemas[f"Page.{key}"] = _lift(error.form, key, schemas)
        is_last = isinstance(error.meta, Mapping) and error.meta.get("hasNext") is False
        inputs: dict[str, Any] = {
            "type": "array",
            "minItems": 1,
            "items": [{"$ref": f"{_SCHEMAS}Page.{key}"}],
            "additionalItems": False if is_last else {"type": "object"},
        }
        return (inputs if is_last else inputs | {"description": _FURTHER}), {}
    except OrchestratorError:
        return {"type": "array", "items": {"type": "object"}, "description": _DYNAMIC}, example
    return {"type": "array", "items": {"type": "object"}, "description": "Its form has no page."}, example


def _lift(form: Mapping[str, Any], key: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a page's schema with its definitions moved to the document's, under names of their own."""
    definitions = form.get("$defs", {})
    for name, definition in definitions.items():
        schemas[f"Page.{key}.{_component(name)}"] = _point(definition, key)
    page: dict[str, Any] = _point({name: value for name, value in form.items() if name != "$defs"}, key)
    return page


def _point(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return [_point(one, key) for one in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        return {"$ref": f"{_SCHEMAS}Page.{key}.{_component(reference.removeprefix('#/$defs/'))}"}
    return {name: _point(one, key) for name, one in value.items()}


def _start_example(name: str) -> dict[str, Any]:
    return {"workflow": name, "inputs": [], "user": "crm", "idempotency_key": "order-4711"}


def _other_messages() -> dict[str, Any]:
    process = {"process_id": _ID}
    messages = {
        "resume": _message(
            MessageType.RESUME,
            "Resume or retry a process",
            "ResumeProcess",
            {**process, "inputs": [{"hour": 3}], "user": "crm", "seen": 6},
        ),
        "abort": _message(MessageType.ABORT, "Abort a process", "AbortProcess", {**process, "user": "crm"}),
        "getProcess": _message(MessageType.GET_PROCESS, "Ask for a process", "GetProcess", process),
        "getSubscription": _message(
            MessageType.GET_SUBSCRIPTION, "Ask for a subscription", "GetSubscription", {"subscription_id": _OTHER}
        ),
        "listWorkflows": _message(MessageType.LIST_WORKFLOWS, "Ask for the workflows", "ListWorkflows", {}),
        "getBacklog": _message(MessageType.GET_BACKLOG, "Ask how many starts wait", "GetBacklog", {}),
        "processEvent": _message(
            MessageType.PROCESS_EVENT,
            "A process has a new status",
            "ProcessEvent",
            _EVENT,
            "At least once, in order of `sequence` for each process.",
            headers=True,
        ),
        "stepEvent": _message(
            MessageType.STEP_EVENT,
            "An attempt of a step has ended, or a step was skipped or is waiting",
            "StepEvent",
            {**_EVENT, "status": "success", "step": "Configure the node", "position": 2, "attempt": 2},
            headers=True,
        ),
        "deadLetter": {
            "name": "dead.letter",
            "title": "A message that could not be used",
            "headers": {"$ref": f"{_SCHEMAS}LetterHeaders"},
            "payload": {"$ref": f"{_SCHEMAS}Letter"},
        },
    }
    for name, (kind, model, words, example) in _REPLIES.items():
        messages[name] = _message(kind, words, model.__name__, example)
    for name, (key, words, example) in _CALLBACKS.items():
        messages[name] = _message(key, words, "Object", example, "The correlation id is the job's token.")
    return messages


def _message(
    kind: str, title: str, schema: str, example: dict[str, Any], words: str = "", *, headers: bool = False
) -> dict[str, Any]:
    return {
        "name": str(kind),
        "title": title,
        **({"description": words} if words else {}),
        "contentType": "application/json",
        **({"headers": {"$ref": f"{_SCHEMAS}Headers"}} if headers else {}),
        "payload": {"$ref": f"{_SCHEMAS}{schema}"},
        "bindings": {"amqp": {"messageType": str(kind), "bindingVersion": "0.3.0"}},
        **({"examples": [{"payload": example}]} if example else {}),
    }


def _channels(starts: Iterable[str]) -> dict[str, Any]:
    status = {"description": "A status; `*` in a binding stands for any."}
    parameters = {"workflow": {"description": "The workflow's name."}, "status": status}
    return {
        "startWorkflow": _channel("workflow.start", Exchanges.COMMANDS, {name: f"start.{name}" for name in starts}),
        **{name: _channel(key, Exchanges.COMMANDS, {one: one}) for name, (key, one, _) in _COMMANDS.items()},
        "replies": {
            "address": None,
            "description": "The queue that `reply_to` of a command or query names, through the default exchange.",
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _REPLIES},
        },
        **{name: _channel(key, Exchanges.CALLBACKS, {name: name}) for name, (key, *_) in _CALLBACKS.items()},
        "processEvents": {
            **_channel("process.{workflow}.{status}", Exchanges.EVENTS, {"processEvent": "processEvent"}),
            "parameters": parameters,
        },
        "stepEvents": {
            **_channel("step.{workflow}.{status}", Exchanges.EVENTS, {"stepEvent": "stepEvent"}),
            "parameters": parameters,
        },
        "deadLetters": _channel("", Exchanges.DEAD, {"deadLetter": "deadLetter"}),
    }


def _channel(address: str, exchange: Exchanges, messages: Mapping[str, str]) -> dict[str, Any]:
    kind = next(one.type for one in EXCHANGES if one.name is exchange)
    return {
        "address": address,
        "messages": {name: {"$ref": f"#/components/messages/{one}"} for name, one in messages.items()},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange.value, "type": kind, "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _operations(channels: Mapping[str, Any]) -> dict[str, Any]:
    answers = {"startWorkflow": "started"} | {name: answer for name, (*_, answer) in _COMMANDS.items()}
    operations: dict[str, Any] = {}
    for name, channel in channels.items():
        if name == "replies":
            continue
        is_sent = name in {"processEvents", "stepEvents", "deadLetters"}
        operations[name] = {
            "action": "send" if is_sent else "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{one}"} for one in channel["messages"]],
        }
        if name in answers:
            operations[name]["reply"] = {
                "address": {"location": "$message.header#/reply_to"},
                "channel": {"$ref": "#/channels/replies"},
                "messages": [{"$ref": f"#/channels/replies/messages/{one}"} for one in (answers[name], "refused")],
            }
    return operations


def _component(name: str) -> str:
    """Return a name that may stand among a document's components."""
    return re.sub(r"[^a-zA-Z0-9._-]", "_", name)
