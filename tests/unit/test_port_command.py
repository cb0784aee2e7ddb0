"""``orchestrator port`` on files: what it lists, what it writes, and what it says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.cli.codemod import find_sources
from tests.unit.ported_texts import rules


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command would log to the stream of its runner, and later tests would find that closed."""
    monkeypatch.setattr("orchestrator.cli.context.configure_logging", lambda *_: None)


NEEDS = """\
from functools import partial
from sqlalchemy.orm import Session

def v(session: Session, x):
    return A.from_db(session, x)


"""
"""What needs the session, ported."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("session = requests.Session()\n\n\ndef f():\n    return A.from_db(session.get())\n", [(5, "session")]),
        ("async def f():\n    return A.from_db(1)\n", [(2, "session")]),
        ("async def f(session):\n    return await A.from_db(session, 1)\n", []),
        ("from orchestrator.core.db import db\n\nrows = db.session.execute('x')\n", [(1, "import"), (3, "session")]),
        ("from orchestrator.core.graphql import Query\n", [(1, "import")]),
        ("from orchestrator.db import *\n", [(1, "import")]),
        ("from orchestrator.services import subscriptions\n\nsubscriptions.get_subscription(1)\n", [(3, "import")]),
        ("class A:\n    @property\n    def b(self):\n        return A.from_db(1)\n", [(4, "session")]),
        ("@create_workflow()\ndef w():\n    return begin >> f(A.from_db(1))\n", [(3, "session")]),
        ("def v(x):\n    return A.from_db(x)\n\n\nT = Annotated[str, AfterValidator(v)]\n", [(6, "session")]),
        ("@step('a')\ndef a(session):\n    session.commit()\n    session.commit()\n", [(3, "commit"), (4, "commit")]),
        ("@step('a')\ndef a():\n    with transactional(db, log):\n        pass\n", [(3, "commit")]),
        ("@step('a')\ndef a(callback_route):\n    return {'callback_route': callback_route}\n", [(3, "secret")]),
        ("@step('a')\ndef a(callback_route):\n    return {'my_route': callback_route}\n", [(3, "secret")]),
        ("@step('a')\ndef a():\n    return {'router_password': 'x', 'tokens': 1}\n", [(3, "secret")]),
        ("import requests\n\n\n@step('a')\ndef a(url):\n    requests.post(url)\n", [(5, "again")]),
        ("@retrystep('a')\ndef a(url):\n    return {'id': netbox.create(url)}\n", [(2, "again")]),
        ("@step('a')\ndef a(url, idempotency_key):\n    netbox.create(url, idempotency_key)\n", []),
        ("@step('a')\ndef a(session, row):\n    session.add(row)\n", []),
        ("import requests\n\n\nasync def a(url):\n    requests.get(url)\n", [(5, "blocking")]),
        ("from time import sleep\n\n\nasync def a():\n    sleep(1)\n", [(5, "blocking")]),
        ("import time\n\n\ndef a():\n    time.sleep(1)\n", []),
        ("@step('a')\ndef a(subscription):\n    return {'x': subscription.model_dump()}\n", [(3, "copy")]),
        ("def f(block):\n    return [x for x in block.in_use_by]\n", [(2, "in_use_by")]),
        ("def f(block, session):\n    return block.in_use_by(session)\n", []),
        ("@step('a')\ndef a(port: Port):\n    return {'x': port.node.dict()}\n", [(3, "copy")]),
        ("@step('a')\ndef a():\n    x = Port.from_other_lifecycle(p, s)\n    return {'x': x.dict()}\n", [(4, "copy")]),
        ("@step('a')\ndef a(port):\n    x = payload_of(port)\n    return {'x': x.dict()}\n", []),
        ("class A:\n    def f(self):\n        return UserTable.query.all()\n", [(3, "query"), (3, "session")]),
        ("from orchestrator.core.db import ProductTable\n\nx = ProductTable.workflows\n", [(3, "query")]),
        ("from orchestrator.core.db import ProductTable\n\nx = ProductTable.product_type\n", []),
        ("from orchestrator.core.db.database import Database\n", [(1, "import")]),
        ("from orchestrator.workflows.utils import modify_initial_input_form_generator\n", []),
        ("def f(block):\n    return block.subscription.product.name\n", [(2, "block")]),
        (f"{NEEDS}def f(g=None):\n    return g or v\n", [(9, "session")]),
        (
            f"{NEEDS}def f(g=None):\n    h = g if g else v\n    return [h, {{'v': v}}]\n",
            [(9, "session"), (10, "session")],
        ),
        (f"{NEEDS}def f(session: Session):\n    return partial(v, session)\n", []),
        (f"{NEEDS}def f(v):\n    return v\n", []),
        ("class A:\n    def f(self):\n        return self.subscription.product.name\n", []),
        ("def f(port):\n    port.save()\n", [(2, "save")]),
        ("def f():\n    work.delay(1)\n", [(2, "queue")]),
    ],
)
def test_what_a_person_must_look_at_is_listed_with_its_line(text: str, expected: list[tuple[int, str]]) -> None:
    assert rules(text) == expected


WORKFLOWS = """\
    class PortInactive(SubscriptionModel, is_base=True):
        pass


    class PortProvisioning(PortInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
        pass


    class Port(PortProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
        pass


    @step("Tight")
    def tight(subscription: Port):
        pass


    @step("Loose")
    def loose(subscription: PortProvisioning):
        pass


    @{kind}()
    def workflow():
        return begin >> {steps}
"""


@pytest.mark.parametrize(
    ("kind", "steps", "expected"),
    [
        ("modify_workflow", "tight >> set_status(SubscriptionLifecycle.PROVISIONING) >> loose", []),
        ("modify_workflow", "set_status(SubscriptionLifecycle.PROVISIONING) >> tight", [(14, "lifecycle")]),
        ("modify_workflow", "set_status(SubscriptionLifecycle.INITIAL) >> loose", [(19, "lifecycle")]),
        ("terminate_workflow", "tight", [(14, "lifecycle")]),
        ("terminate_workflow", "loose", []),
        ("create_workflow", "loose", [(19, "lifecycle")]),
        ("create_workflow", "set_status(unknown) >> tight", [(14, "lifecycle")]),
    ],
)
def test_a_model_of_a_later_lifecycle_than_the_subscription_has_is_listed(
    kind: str, steps: str, expected: list[tuple[int, str]]
) -> None:
    assert rules(WORKFLOWS.format(kind=kind, steps=steps)) == expected


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["port", *arguments], env={"COLUMNS": "400"})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "venv").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("venv/a.py", ".hidden/a.py", "good.py"):
        (tmp_path / name).write_text("from orchestrator.core.targets import Target\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "fine.py").write_text("x = 1\n")
    return tmp_path


def test_check_shows_the_change_and_writes_nothing(project: Path) -> None:
    before = (project / "good.py").read_bytes()

    done = run("--check", str(project))

    assert done.exit_code == 1
    assert "\n+from orchestrator.targets import Target\n" in done.stdout
    assert (project / "good.py").read_bytes() == before


def test_files_are_changed_and_one_that_cannot_be_parsed_is_left_alone(project: Path) -> None:
    done = run(str(project), "--json")

    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert [one["path"] for one in told["changed"]] == [str(project / "good.py")]
    assert [one["path"] for one in told["unreadable"]] == [str(project / "broken.py")]
    assert (told["files"], told["remaining"]) == (3, [])
    assert (project / "good.py").read_text() == "from orchestrator.targets import Target\n"
    assert (project / "venv" / "a.py").read_text() == "from orchestrator.core.targets import Target\n"
    assert (project / "broken.py").read_text() == "def f(:\n"

    again = run("--check", str(project / "good.py"), str(project / "fine.py"))
    assert (again.exit_code, again.stdout) == (0, "2 files: would change 0; 0 places are left to you (docs/port.md)\n")


def test_a_place_for_a_person_is_one_line_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f(port):\n    port.save()\n")

    done = run(str(tmp_path))

    assert done.exit_code == 0
    assert f"{tmp_path / 'a.py'}:2: save: if 'port' is a subscription: 'port.save(session)'" in done.stdout


def test_a_folder_without_python_is_refused(tmp_path: Path) -> None:
    done = run(str(tmp_path))

    assert done.exit_code == 1
    assert done.stderr == f"no Python file in {tmp_path}\n"


def test_without_libcst_the_command_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libcst", None)
    for name in [one for one in sys.modules if one.startswith("orchestrator.cli.codemod")]:
        monkeypatch.delitem(sys.modules, name)

    done = run(str(tmp_path))

    assert done.exit_code == 1
    assert done.stderr == (
        "'orchestrator port' needs libcst, which is not installed: pip install 'orchestrator[port]'\n"
    )


def test_every_file_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").touch()
    assert find_sources([tmp_path, tmp_path / "a.py"]) == [tmp_path / "a.py"]


def test_the_guide_explains_every_rule() -> None:
    sources = Path(__file__).resolve().parents[2] / "orchestrator/cli/codemod/findings.py"
    used = set(re.findall(r'report\(\s*\w+,\s*"(\w+)"', sources.read_text())) | {"lifecycle"}
    guide = Path(__file__).resolve().parents[2] / "docs/port.md"

    assert set(re.findall(r"^\| `(\w+)` \|", guide.read_text(), re.MULTILINE)) == used
