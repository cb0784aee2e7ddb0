"""The pages of the documentation as tests see them: their blocks, their code as files, and a shell in a folder with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import forking

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
EXAMPLES = REPOSITORY / "examples"
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), *EXAMPLES.rglob("*.md"), REPOSITORY / "deploy" / "README.md"]
)
PROJECT = [
    DOCS / f"{name}.md"
    for name in (
        "product-modelling",
        "blocks-in-fields",
        "models-in-steps",
        "migration-helpers",
        "write-a-workflow",
        "steps",
        "retries",
        "forms",
        "callback-steps",
        "compose-workflows",
        "start-many",
        "subscription-workflows",
        "test-workflows",
    )
]
"""Pages whose code is one project, in the order in which it is read."""

FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Shell:
    """A shell in a project's folder, with the environment that the pages ask for."""

    folder: Path
    database_url: str
    amqp_url: str
    workflows: str

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "COVERAGE_"))}
        return own | {
            "ORCHESTRATOR_DATABASE_URL": self.database_url,
            "ORCHESTRATOR_AMQP_URL": self.amqp_url,
            "ORCHESTRATOR_WORKFLOWS": self.workflows,
            "ORCHESTRATOR_CONNECT_TIMEOUT": "15",
            "SERVICE_AMQP_URL": self.amqp_url,
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def run(self, *command: str, code: int = 0) -> str:
        program, *arguments = command
        if program == "orchestrator":
            outcome = forking.run(arguments, environment=self.environment, folder=self.folder, seconds=180)
        else:
            outcome = subprocess.run(
                command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=180
            )
        assert outcome.returncode == code, f"{command}\n{outcome.stdout}\n{outcome.stderr}"
        return outcome.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run("orchestrator", *arguments, "--json", code=code))

    def start(self, workflow: str, *pages: dict[str, str], status: str = "completed", user: str = "noc") -> None:
        """Start a workflow and wait for its end."""
        inputs = [part for page in pages for part in ("--input", json.dumps(page))]
        options = ("--user", user, "--wait", "--timeout", "60")
        code = 0 if status == "completed" else 1
        assert self.json("start", workflow, *inputs, *options, code=code)["status"] == status

    def choice(self, workflow: str, page: dict[str, str], label: str) -> str:
        """Return what must be sent to choose ``label`` on the next page of a workflow's form."""
        given = ("--input", json.dumps(page)) if page else ()
        form = self.json("start", workflow, *given, code=1)["form"]
        (options,) = [one["options"] for one in form["$defs"].values() if "options" in one]
        (value,) = [value for value, text in options.items() if text == label]
        return str(value)

    @contextmanager
    def dev(self) -> Iterator[None]:
        """Coordinator and consumer, while the block runs."""
        log = self.folder / "dev.log"
        with log.open("w") as written:
            program = forking.start(
                ["dev"], environment=self.environment, folder=self.folder, output=written.fileno(), new_session=False
            )
            try:
                yield
            finally:
                program.terminate()
                program.wait(60)
        assert program.returncode == 0, log.read_text()


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``info`` is what stands after the backquotes."""

    page: Path
    info: str
    text: str


def blocks(page: Path, language: str) -> list[Block]:
    found = [Block(page, info.strip(), text) for _, info, text in FENCE.findall(page.read_text())]
    return [block for block in found if block.info.split(" ")[0] == language]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def write_files(page: Path, folder: Path) -> list[Path]:
    """Write the Python blocks of a page and of those that belong to it.

    The first line of a block names its file; later blocks of one name are appended.
    """
    written: dict[Path, str] = {}
    for block in [one for each in (PROJECT if page in PROJECT else [page]) for one in blocks(each, "python")]:
        first = block.text.splitlines()[0]
        assert re.fullmatch(r"# [\w/]+\.py", first), (
            f"{name_of(block.page)}: a Python block must begin with '# path.py': {first}"
        )
        path = folder / first.removeprefix("# ")
        written[path] = written.get(path, "") + block.text
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(written)
