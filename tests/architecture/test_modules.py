"""What every module keeps to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePath

from tests.architecture.repository import files, modules, text, tree

MAX_LINES = 400

VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc", "stuff"}
"""Names that say nothing about what is inside."""

NAMED_BY_CONTRACT = {
    "orchestrator/workflows/utils.py",
    "orchestrator/migrations/helpers.py",
    "orchestrator/utils/__init__.py",
    "orchestrator/utils/errors.py",
}
"""Where other engines of this kind have their decorators, helpers and errors, so that ports need no other import."""

READS_THE_ENVIRONMENT = {
    "orchestrator/settings.py": "pydantic's own variable, for shorter errors, is set there; misspelt ones are named",
    "orchestrator/cli/__init__.py": "--utc sets TZ, by which the C library knows the zone of local times",
    "orchestrator/cli/output.py": "COLUMNS is how wide a person wants tables, as in every other program",
}

SLEEPS = {
    "consumers/precedence.py": "gives way for single turns of the event loop; nothing depends on how long they take",
    "consumers/isolated.py": "lets what was scheduled come first, in one turn of the event loop",
    "orchestrator/user_code.py": "gives a function its first turn of the event loop, and then waits for its end",
    "orchestrator/cli/watch.py": "a person watches a process; nothing depends on when they see it",
    "orchestrator/cli/stored.py": "as above",
    "orchestrator/cli/remote.py": "as above",
    "orchestrator/workflows/tasks/cleanup_tasks_log.py": "a step, cancelled when its consumer stops, lets others go first",
}


def test_every_module_is_short_enough_to_read() -> None:
    lines = {name: len(text(name).splitlines()) for name in modules()}

    assert {name: number for name, number in lines.items() if number > MAX_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    parts = {name: {*PurePath(name).parent.parts, PurePath(name).stem} for name in modules()}

    assert {name for name, words in parts.items() if words & VAGUE} <= NAMED_BY_CONTRACT


def test_modules_that_are_there_for_ports_only_hold_nothing_of_their_own() -> None:
    for name in NAMED_BY_CONTRACT - {"orchestrator/workflows/utils.py"}:
        own = [node for node in tree(name).body[1:] if not isinstance(node, ast.ImportFrom | ast.Assign)]
        assert own == [], name


def calls(name: str) -> Iterator[str]:
    """The dotted names of all attributes that a module uses."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def mentioning(words: set[str], *packages: str) -> list[str]:
    """Return the modules in whose text one of the words is: to search it is far cheaper than to parse it."""
    mentioned = re.compile(rf"\b(?:{'|'.join(words)})\b")
    return [name for name in modules(*packages) if mentioned.search(text(name))]


def using(names: set[str]) -> set[str]:
    candidates = mentioning({name.rpartition(".")[2] for name in names}, "orchestrator", "consumers", "migrations")
    return {name for name in candidates if names & set(calls(name))}


def test_settings_are_read_in_one_place() -> None:
    """``orchestrator/settings.py``, by way of pydantic-settings."""
    assert using({"os.environ", "os.getenv", "os.putenv"}) == set(READS_THE_ENVIRONMENT)


def test_nothing_waits_by_sleeping() -> None:
    """Loops wait for an event or a deadline, so that they stop at once and tests need no patience."""
    assert using({"time.sleep", "asyncio.sleep"}) == set(SLEEPS)


def test_nothing_is_printed_but_by_the_command_line() -> None:
    printing = {
        name
        for name in mentioning({"print"}, "orchestrator", "consumers")
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }

    assert {name for name in printing if not name.startswith("orchestrator/cli/")} == set()


def undocumented(name: str) -> Iterator[str]:
    module = tree(name)
    if module.body and ast.get_docstring(module) is None:
        yield name
    for node in module.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not node.name.startswith("_") and ast.get_docstring(node) is None:
            yield f"{name}: {node.name}"


def test_every_public_function_and_class_is_documented() -> None:
    missing = [what for name in modules("orchestrator", "consumers") for what in undocumented(name)]

    assert missing == []


def test_nothing_refers_to_the_place_where_it_was_written() -> None:
    elsewhere = re.compile("/wo" + r"rk/|\.\./sha" + "red")
    texts = {name: text(name) for name in files() if PurePath(name).suffix not in {".png", ".svg", ".ico"}}

    assert [name for name, content in texts.items() if elsewhere.search(content)] == []


def test_no_work_is_left_as_a_note_in_the_code() -> None:
    note = re.compile("TO" + "DO|FIX" + "ME|XX" + "X")

    assert [name for name in modules() if note.search(text(name))] == []
