"""The table of commands: names and summaries. The module of a command is imported when the command is invoked.

So ``--help`` and ``--version`` import no client of a server, and every other command only what it needs.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

MARKUP: Final = "rich"


@dataclass(frozen=True, slots=True)
class Section:
    """Commands that share a module and a heading in ``--help``.

    Args:
        module: the module in ``orchestrator.cli`` that has their functions. A function has the command's name, or that name
            with ``_command`` where Python or the module means something else by it.
        summaries: the name of each command and its line in ``--help``: the first paragraph of its function's docstring.
        panel: the heading.
    """

    module: str
    summaries: Mapping[str, str]
    panel: str | None = None


COMMANDS = (
    Section(
        "programs",
        {
            "coordinator": "Take commands, results and callbacks, and dispatch what is due. Run one or more.",
            "consumer": "Run steps. Run one or more; the same as: python -m consumers.",
            "api": "Serve the HTTP API. Run one or more.",
            "dev": "Run coordinator, consumer and API in one process, for development.",
        },
        panel="Programs",
    ),
    Section(
        "process_commands",
        {
            "start": "Start a workflow.",
            "resume": "Give a suspended process its input. A failed or waiting one is retried.",
            "retry": "Try a failed or waiting process again, from the state after its last successful step.",
            "abort": "End a process at once. A step that runs at this moment leaves no trace in the database.",
            "patch": "Correct the state of a failed or suspended process. The correction is logged with its reason.",
            "skip": "Leave out the step at which a process has failed, and go on after it. Logged with its reason.",
            "rewind": "Take a process back to an earlier step, with the state of then. Logged with its reason.",
            "note": "Note something on a process for others to see; an empty text removes the note.",
            "delete": "Delete a finished task with its log.",
        },
        panel="Processes",
    ),
    Section(
        "engine_commands",
        {
            "pause": "Stop claiming and dispatching steps, in every program. Running steps finish.",
            "unpause": "Continue after a pause.",
        },
        panel="Engine",
    ),
    Section(
        "process_queries",
        {
            "list": "List processes, the newest first, with their customers and subscriptions.",
            "show": "Show a process's audit trail: who did what, when, with which result.",
            "explain": "Say why a process does not go on: what it waits for, since when, and what to do.",
            "watch": "Follow a process, step by step, until it ends or needs input or an operator.",
        },
        panel="Processes",
    ),
    Section(
        "status",
        {"status": ("Show whether the engine runs, its programs, which steps run, and how much waits in its queues.")},
        panel="Engine",
    ),
    Section(
        "health",
        {"health": "Ask a program on its metrics address whether it is ready; the exit code is 0 if it is, else 1."},
        panel="Engine",
    ),
    Section(
        "upgrade_check",
        {
            "check": "Check, before you deploy this code, which unfinished processes it would break, and what to do about each.",
        },
        panel="Engine",
    ),
    Section(
        "workflows",
        {
            "workflows": "Show which workflows the code and the database know. One can be started when both do.",
        },
        panel="Engine",
    ),
    Section(
        "products", {"products": "List the products. Wherever one is asked for, its name will do."}, panel="Engine"
    ),
    Section(
        "port",
        {
            "port": "Port an application that was written for orchestrator-core: change what is mechanical, list what is not."
        },
        panel="Projects",
    ),
    Section(
        "asyncapi",
        {"asyncapi": ("Print the AsyncAPI 3 document of all messages: commands, queries, replies, callbacks, events.")},
        panel="Engine",
    ),
)

GROUPS: Mapping[str, tuple[str, *tuple[Section, ...]]] = {
    "subscriptions": (
        "Subscriptions: what they are, what has happened to them, what may be done.",
        Section(
            "subscriptions",
            {
                "list": "List subscriptions, the newest first.",
                "show": (
                    "Show what a subscription is: its blocks and their values, who holds it, what it uses and what uses it."
                ),
                "history": (
                    "Show what has happened to a subscription: every process that touched it, step by step, and every change."
                ),
                "workflows": (
                    "Show which workflows of its product may run on a subscription now, and why the others may not."
                ),
                "set-in-sync": (
                    "Mark a subscription as in sync, once you have made sure that it is. Refused while an unfinished process"
                    " holds it."
                ),
            },
        ),
    ),
    "bulk": (
        "Act on many processes at once.",
        Section(
            "bulk_commands",
            {
                "retry": "Retry all failed and waiting processes that fit. One that has changed meanwhile is left alone.",
                "abort": "Abort all unfinished processes that fit. One that has changed meanwhile is left alone.",
            },
        ),
    ),
    "plans": (
        "The plans of workflows, by which programs of different versions know what comes next.",
        Section(
            "plans",
            {
                "list": "List the plans of workflows that programs have registered, the newest first.",
                "activate": (
                    "Make an older plan the registered one again: the rollback, after the older code was deployed again."
                ),
            },
        ),
    ),
    "schedules": (
        "Schedules: when workflows start by themselves.",
        Section(
            "schedule_queries",
            {
                "list": (
                    "List schedules by name: whether they start anything, when next, and what became of the last slot."
                ),
                "show": (
                    "Show a schedule: what it starts and when, the coming slots, what became of the recent ones, and who has"
                    " changed it."
                ),
            },
        ),
        Section(
            "schedule_commands",
            {
                "add": "Make a schedule: a workflow starts by itself. Give one of --cron, --every and --at.",
                "edit": "Change what is given about a schedule; the rest stays. --input replaces all pages.",
                "pause": "Stop a schedule from starting anything. A slot that is queued does not start.",
                "resume": (
                    "Let a schedule start processes again, from its next slot on. What lies in between is not made up for."
                ),
                "remove": (
                    "Remove a schedule. One that the code declares does not come back, until 'reset' or 'add' brings it back."
                ),
                "run": "Start the workflow of a schedule now, also while it is paused. Its slots stay as they are.",
                "reset": ("Make a schedule what the code declares again: in all fields, and also when it was removed."),
            },
        ),
        Section(
            "schedules",
            {
                "next": (
                    "Show when a cron expression, an interval or a date would be due, with what clock changes do to it."
                ),
            },
        ),
    ),
    "api-keys": (
        "Keys by which programs are known to the HTTP API.",
        Section(
            "api_keys",
            {
                "create": "Make a key and print it. It is printed this once: only its hash is stored.",
                "list": "List the keys, the newest first, also those that are revoked or have expired.",
                "revoke": "Revoke a key. From then on every request with it is refused.",
            },
        ),
    ),
    "db": (
        "The database and its migrations.",
        Section(
            "domain_models",
            {
                "migrate-domain-models": (
                    "Write the migration that makes the database know the products and blocks of SUBSCRIPTION_MODEL_REGISTRY,"
                    " and no others."
                ),
            },
        ),
        Section(
            "database",
            {
                "upgrade": (
                    "Apply all migrations, the engine's and your own, that are not applied yet. Repeating it is harmless."
                ),
                "downgrade": "Undo migrations, with the data that their tables hold.",
                "revision": "Write an empty migration into your project's folder (ORCHESTRATOR_MIGRATIONS).",
                "merge": (
                    "Write the migration that joins two heads of your project's migrations, written side by side, into one."
                ),
                "migrate-workflows": (
                    "Write the migration that makes the database know the workflows of the code, and no others."
                ),
                "status": "Show which migrations are applied and which are not. Exits with 1 when some are missing.",
            },
        ),
    ),
    "dead-letters": (
        "Messages that could not be used: why, what they say, and how they are sent again.",
        Section(
            "dead_letters",
            {
                "list": "List messages that could not be used, the newest first.",
                "show": "Show a message that could not be used: why, what its sender has set, and its body.",
                "replay": (
                    "Send messages again to where they were sent, with the same message id, once their cause is fixed."
                ),
                "discard": "Close messages that are not to be sent again. They are deleted after 30 days.",
            },
        ),
    ),
    "topology": (
        "Exchanges and queues in RabbitMQ.",
        Section(
            "topology",
            {
                "declare": (
                    "Declare all exchanges, queues and bindings. Programs do so themselves, if their user may; it can be"
                    " repeated."
                ),
                "show": "Show each exchange and who may write to it, each queue, who reads it, and how much waits in it.",
            },
        ),
    ),
}


class Root(TyperGroup):
    """The group ``orchestrator``, with the commands of the table."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        _fill(self, COMMANDS)
        for name, (summary, *sections) in GROUPS.items():
            group = TyperGroup(name=name, help=summary, no_args_is_help=True, rich_markup_mode=MARKUP)
            _fill(group, sections)
            self.add_command(group)


class LazyCommand(TyperCommand):
    """A command as ``--help`` lists it, in whose place the real one runs."""

    def __init__(self, name: str, summary: str, section: Section) -> None:
        super().__init__(name, help=summary, rich_markup_mode=MARKUP, rich_help_panel=section.panel)
        self._section = section

    def load(self) -> Any:
        """Import the command's module and return the real command."""
        module = importlib.import_module(f"orchestrator.cli.{self._section.module}")
        name = str(self.name).replace("-", "_")
        function = getattr(module, f"{name}_command", None) or getattr(module, name)
        alone = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
        alone.command(self.name, rich_help_panel=self._section.panel)(function)
        return typer.main.get_command(alone)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Make the context of the real command, which is the one that is invoked."""
        with _collector_off():
            real = self.load()
        return real.make_context(*arguments, **options)


@contextmanager
def _collector_off() -> Iterator[None]:
    """Import without Python's garbage collector, and keep it away from what was imported for good.

    Modules, classes and functions live until the process ends; walking over them again and again while they are made took a
    quarter of the CPU time of ``orchestrator status``.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _fill(group: TyperGroup, sections: Iterable[Section]) -> None:
    for section in sections:
        for name, summary in section.summaries.items():
            group.add_command(LazyCommand(name, summary, section))
