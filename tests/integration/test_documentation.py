"""The documentation is true: its commands exist, its names, defaults, messages and links are those of the project."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer.main

from orchestrator import errors, messages, query_messages
from orchestrator.broker.topology import EXCHANGES, FIXED_QUEUES, Topology
from orchestrator.cli import app
from orchestrator.cli.commands import LazyCommand
from orchestrator.db import registration
from orchestrator.db.session import Database
from orchestrator.domain import ProductBlockModel, SubscriptionModel
from orchestrator.engine import usability
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings, variable_of
from orchestrator.types import ProcessStatus
from tests.integration.documentation import DOCS, PAGES, REPOSITORY, Block, blocks, name_of, prose

NOT_SETTINGS = {
    "ORCHESTRATOR_SERVICES_PIDS",
    "ORCHESTRATOR_API_KEY",
    # Of the field's user interface.
    "ORCHESTRATOR_API_HOST",
    "ORCHESTRATOR_GRAPHQL_HOST",
    "ORCHESTRATOR_WEBSOCKET_URL",
}

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")


# messages


def failures(check: Callable[[Block], object], language: str) -> list[str]:
    """Run a check on every block of a language; return where it has failed, and why."""
    found = []
    for page in PAGES:
        for block in blocks(page, language):
            try:
                check(block)
            except (ValueError, SyntaxError, OrchestratorError) as error:
                found.append(f"{name_of(page)}: {block.text.splitlines()[0]}: {error}")
    return found


def test_every_python_block_is_python() -> None:
    assert failures(lambda block: ast.parse(block.text), "python") == []


MODELS: dict[str, type[messages.Message]] = {
    name: value
    for name, value in {**vars(messages), **vars(query_messages)}.items()
    if isinstance(value, type) and issubclass(value, messages.Message)
}


def test_the_example_messages_are_read_by_the_engine() -> None:
    def read(block: Block) -> None:
        _, _, model = block.info.partition(" ")
        if model:
            messages.decode(MODELS[model], block.text.encode())
        else:
            json.loads(block.text)

    assert failures(read, "json") == []


def test_every_message_has_an_example() -> None:
    pages = [DOCS / "messages.md", DOCS / "query-by-message.md", DOCS / "internal-messages.md"]
    shown = {block.info.partition(" ")[2] for page in pages for block in blocks(page, "json")}
    inside = {"Message", "Internal", "NextStep", "LoggedEntry", "FoundBlock", "FoundEntry", "FoundWorkflow"}
    assert shown == set(MODELS) - inside
    text = "".join(page.read_text() for page in pages)
    assert [kind.value for kind in messages.MessageType if kind.value not in text] == []


# the commands


def commands() -> list[tuple[str, str]]:
    """Every ``orchestrator …`` command of a page, with the page's name."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                found += [(name_of(page), part) for part in re.split(r"&&|;(?= )", line.split("  #")[0].split(" #")[0])]
        found += [(name_of(page), text) for text in _INLINE.findall(prose(page))]
    return sorted({(page, text.strip()) for page, text in found if re.match(r"orchestrator [a-z-]", text.strip())})


def unknown_words(command: str) -> list[str]:
    """The words of a command line that name a command or an option that does not exist."""
    words = shlex.split(command)[1:]
    here: Any = typer.main.get_command(app)
    while words and words[0] in {option for parameter in here.params for option in parameter.opts}:
        words.pop(0)  # of every command
    while hasattr(here, "commands") and words:
        if words[0] not in here.commands:
            return words[:1]
        here = here.commands[words.pop(0)]
        here = here.load() if isinstance(here, LazyCommand) else here
    options = {option for parameter in here.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if re.match(r"--?[a-z]", word) and word not in {*options, "--help", "-h"}]


def test_every_command_exists_with_its_options() -> None:
    shown = commands()
    assert len(shown) > 50
    assert [(page, command, unknown) for page, command in shown if (unknown := unknown_words(command))] == []


def test_every_script_that_is_named_exists() -> None:
    for page in PAGES:
        for name in re.findall(r"(?<![\w./])(?:\./)?scripts/([a-z0-9_-]+(?:\.py)?)", page.read_text()):
            assert (REPOSITORY / "scripts" / name).exists(), f"{name_of(page)}: scripts/{name}"


# names and defaults


def test_every_setting_is_documented_with_its_default() -> None:
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", (DOCS / "settings.md").read_text(), re.MULTILINE))
    expected = {}
    for name, setting in Settings.model_fields.items():
        if setting.is_required():
            default = "required"
        elif setting.default is None:
            default = "none"
        elif setting.default == ():
            default = "empty"
        elif isinstance(setting.default, tuple):
            default = f"`{json.dumps(setting.default)}`"
        else:
            default = f"`{setting.default:g}`" if isinstance(setting.default, float) else f"`{setting.default}`"
        expected[variable_of(name)] = default
    assert table == expected


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    known = {variable_of(name) for name in Settings.model_fields} | NOT_SETTINGS
    named = {page: set(re.findall(r"\bORCHESTRATOR_[A-Z_]+\b", page.read_text())) for page in PAGES}
    assert {name_of(page): found - known for page, found in named.items() if found - known} == {}


def test_the_defaults_in_the_readme_are_the_real_ones() -> None:
    text = (REPOSITORY / "README.md").read_text()
    for name, shown in re.findall(r"`ORCHESTRATOR_([A-Z_]+)`[^|\n(]{0,3}\((\d+)(?: s)?\)", text):
        assert Settings.model_fields[name.lower()].default == float(shown), name


def test_every_exchange_and_queue_is_in_the_operators_page() -> None:
    text = (DOCS / "queues.md").read_text()
    for exchange in EXCHANGES:
        assert f"| `{exchange.name.value}` ({exchange.type}) |" in text
    for queue in (*FIXED_QUEUES, *Topology().queues):
        assert f"`{queue.name}`" in text
        for key in queue.keys:
            assert not key or f"`{key}`" in text or queue.name == f"orchestrator.steps.{key}"


def test_every_reason_of_a_refusal_is_documented() -> None:
    keys = {value for name, value in vars(usability).items() if name.isupper() and isinstance(value, str)}
    assert len(keys) > 5
    for name in ("rules.md", "messages.md"):
        text = (DOCS / name).read_text()
        assert [key for key in sorted(keys) if f"| `{key}` |" not in text] == [], name
    refusals = [value for value in vars(errors).values() if isinstance(value, type) and "key" in vars(value)]
    raised = {value.key for value in refusals if issubclass(value, errors.RequestError)}
    known = "".join((DOCS / name).read_text() for name in ("messages.md", "rules.md", "http-api.md"))
    assert [key for key in sorted(raised - {"request.refused", "callback.refused"}) if f"`{key}`" not in known] == []


def test_every_refusal_of_a_command_is_in_the_page_about_other_services() -> None:
    table = (DOCS / "start-from-another-service.md").read_text().split("## Refusals")[1].split("\n## ")[0]
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    never = {"RequestError", "SubscriptionHeldError", "CallbackRefusedError"}
    never |= {"UnauthenticatedError", "InsufficientRoleError", "InvalidQueryError", "QueryTimeoutError"}  # HTTP alone
    refusals = {one.__name__ for one in classes if issubclass(one, errors.RequestError)} - never
    assert sorted(name for name in refusals if f"| `{name}` |" not in table) == []


def test_every_status_of_a_process_is_in_the_page_about_other_services() -> None:
    table = (DOCS / "follow-from-another-service.md").read_text().split("## Follow what happens")[1].split("\n## ")[0]
    assert [status for status in ProcessStatus if f"`{status}`" not in table] == [ProcessStatus.RESUMED]


def test_every_helper_for_migrations_is_in_its_page() -> None:
    named = set(re.findall(r"`(\w+)", (DOCS / "migration-helpers.md").read_text()))
    assert sorted(set(registration.__all__) - named) == []


def test_the_names_that_no_field_may_have_are_in_their_page() -> None:
    rows = (DOCS / "values-and-names.md").read_text().split("## Names that are taken")[1].split("\n## ")[0]
    listed = {
        line.split("|")[1].strip(): set(re.findall(r"`(\w+)`", line)) for line in rows.splitlines() if "|" in line
    }
    for cls, row in ((ProductBlockModel, "blocks"), (SubscriptionModel, "subscriptions")):
        found = {name for name in (*dir(cls), *dir(type(cls))) if not name.startswith(("_", "model_"))}
        plain = {name for name in found if hasattr(cls, name)} | set(cls.model_fields)
        shown = listed[row] | listed["blocks and subscriptions"]
        assert {one for one in shown if not one.startswith("model_")} == plain, row


def test_every_error_is_in_its_page() -> None:
    text = (DOCS / "errors.md").read_text()
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert [
        one.__name__ for one in classes if not re.search(rf"[├└] {one.__name__}\b|^{one.__name__}$", text, re.MULTILINE)
    ] == []
    rows = text.split("## Where each shows up")[1]
    bases = {"OrchestratorError", "RequestError", "StepError"}
    assert [one.__name__ for one in classes if one.__name__ not in bases and f"`{one.__name__}`" not in rows] == []


def test_every_test_that_a_page_names_exists() -> None:
    written = {
        name
        for path in (REPOSITORY / "tests").rglob("*.py")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    for page in PAGES:
        named = set(re.findall(r"`(?:[\w/.]+::)?(test_\w+)`", prose(page)))
        assert sorted(named - written) == [], name_of(page)
        for path in re.findall(r"`((?:tests|orchestrator|consumers|scripts|deploy|examples)/[\w/.-]+)", prose(page)):
            assert (REPOSITORY / path).exists(), f"{name_of(page)}: {path}"


async def test_the_queries_for_operators_run(database: Database) -> None:
    statements = [
        part
        for page in ("monitoring.md", "servers.md")
        for block in blocks(DOCS / page, "sql")
        for part in block.text.split(";")
        if part.strip()
    ]
    assert len(statements) > 5
    for statement in statements:
        await database.pool.fetch(statement)


# links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


def leads_somewhere(page: Path, target: str) -> bool:
    """Whether the target of a link on a page is elsewhere on the net, or is in this repository with its anchor."""
    if re.match(r"[a-z]+:", target):
        return True
    path, _, anchor = target.partition("#")
    linked = (page.parent / path).resolve() if path else page
    return linked.exists() and linked.is_relative_to(REPOSITORY) and (not anchor or anchor in anchors(linked))


def test_every_link_leads_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in _LINK.findall(prose(page))]
    assert len(links) > 100
    assert [f"{name_of(page)}: {target}" for page, target in links if not leads_somewhere(page, target)] == []


def test_every_page_can_be_reached() -> None:
    seen: set[Path] = set()
    waiting = [REPOSITORY / "README.md", DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        waiting += [
            (page.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(page)) if ":" not in link
        ]
    assert [name_of(page) for page in PAGES if page not in seen and page != DOCS / "index.md"] == []


def test_a_page_is_short_enough_to_read() -> None:
    tables = {REPOSITORY / "CHANGELOG.md", DOCS / "reliability-proofs.md"}
    long = {name_of(page): len(page.read_text().splitlines()) for page in PAGES if page not in tables}
    assert {name: lines for name, lines in long.items() if lines > 150} == {}
    assert long["README.md"] <= 125


QUOTED = (
    "is the engine's own",
    "callback refused",
    "attempt lost",
    "given back",
    "attempt overtaken",
    "attempt not finished",
    "message could not be processed",
    "reconciler round failed",
    "internal error: ",
    "unknown message version",
    "the form is not complete: send the next page as well",
    "was not filled in correctly",
    "may not run on subscription",
    "other subscriptions that are not terminated use it",
)
"""What pages quote of the texts of errors, log lines and log entries."""


def test_texts_that_pages_quote_are_those_of_the_programs() -> None:
    written = " ".join(page.read_text() for page in PAGES)
    code = " ".join(
        path.read_text() for folder in ("orchestrator", "consumers") for path in (REPOSITORY / folder).rglob("*.py")
    )
    assert [text for text in QUOTED if text not in written or text not in code] == []


def test_the_readme_counts_test_functions() -> None:
    """Roughly, so that it need not be changed with every test."""
    shown = re.search(r"some (\d),(\d)00 test functions", (REPOSITORY / "README.md").read_text())
    assert shown is not None
    functions = [
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *(?:async )?def test_\w+", path.read_text(), re.MULTILINE)
    ]
    assert abs(len(functions) - int("".join(shown.groups()) + "00")) < 100
