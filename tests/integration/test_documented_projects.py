"""The code of the documentation runs: it can be imported, its workflows laid out, and its projects brought to life."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY
from orchestrator.engine import usability
from orchestrator.engine.plan import Plan
from orchestrator.services.subscriptions import (
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS,
    WF_USABLE_MAP,
    WF_USABLE_WHILE_OUT_OF_SYNC,
    check_rules,
)
from orchestrator.workflow import Workflow
from tests.integration.documentation import DOCS, PROJECT, REPOSITORY, Shell, blocks, name_of, write_files

HOW_TOS = [
    REPOSITORY / "README.md",
    DOCS / "write-a-workflow.md",
    DOCS / "rules.md",
    DOCS / "authorization.md",
    DOCS / "callbacks-from-any-language.md",
    DOCS / "start-from-another-service.md",
    DOCS / "follow-from-another-service.md",
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which modules can be imported, and of which nothing is left afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("orchestrator.registry._instances", {})
    monkeypatch.setattr("orchestrator.domain.definition._families", {})
    changed: list[dict[str, Any]] = [SUBSCRIPTION_MODEL_REGISTRY, WF_USABLE_MAP, WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS]
    originals, listed = [dict(one) for one in changed], list(WF_USABLE_WHILE_OUT_OF_SYNC)
    SUBSCRIPTION_MODEL_REGISTRY.clear()
    before = set(sys.modules)
    yield tmp_path
    check_rules()
    for one, original in zip(changed, originals, strict=True):
        one.clear()
        one.update(original)
    WF_USABLE_WHILE_OUT_OF_SYNC[:] = listed
    for module in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


@pytest.mark.parametrize("page", HOW_TOS, ids=name_of)
def test_the_code_of_a_page_can_be_imported_and_every_workflow_laid_out(page: Path, project: Path) -> None:
    workflows = []
    paths = write_files(page, project)
    assert paths, "no code"
    for path in paths:
        module = importlib.import_module(
            ".".join(path.relative_to(project).with_suffix("").parts).removesuffix(".__init__")
        )
        workflows += [value for value in vars(module).values() if isinstance(value, Workflow)]
    for workflow in workflows:
        assert len(Plan.of(workflow)) > 0
    if page.name == "README.md" or page in PROJECT:
        assert workflows
        from orchestrator.registry import known_workflows, plan_of

        registered = list(known_workflows())
        assert registered
        for name in registered:
            assert plan_of(name).workflow.name == name


def test_the_first_workflow_runs_as_the_readme_says(database_url: str, amqp_url: str, tmp_path: Path) -> None:
    """With the commands of the README; and the service of the page about services starts it, too, once per key."""
    write_files(REPOSITORY / "README.md", tmp_path)
    write_files(DOCS / "start-from-another-service.md", tmp_path)
    shell = Shell(tmp_path, database_url, amqp_url, workflows="ports")
    shown = [
        line.split("  ")[0] for block in blocks(REPOSITORY / "README.md", "sh") for line in block.text.splitlines()
    ]
    prepare = [line for line in shown if line.startswith("orchestrator db ")]
    (start,) = [line for line in shown if line.startswith("orchestrator start ")]
    assert len(prepare) == 3
    for line in prepare:
        shell.run(*shlex.split(line))
    with shell.dev():
        words = shell.run(*shlex.split(start), "--timeout", "60")
        assert "Configure the node  success" in words
        assert words.rstrip().splitlines()[-1].split()[2] == "completed"
        first, second = shell.run(sys.executable, "service.py"), shell.run(sys.executable, "service.py")
        assert first.startswith("('workflow.started'")
        assert "'created': True" in first
        assert second == first.replace("True", "False")


def migrate_as_shown(shell: Shell, name: str) -> None:
    """Fill in an empty migration with what a page shows, and apply it."""
    empty = shell.folder / shell.json("db", "revision", "-m", name)["path"]
    imports, upgrade, rest = (shell.folder / f"{name}.py").read_text().partition("def upgrade")
    head = empty.read_text().partition(upgrade)[0]
    empty.write_text(head.replace("from alembic import op\n", imports) + upgrade + rest)
    shell.run("orchestrator", "db", "upgrade")


def test_the_products_of_the_pages_live_and_end(database_url: str, amqp_url: str, tmp_path: Path) -> None:
    """With the commands of the page about products: a node, a port on it, a check that finds something, and the end of both."""
    write_files(DOCS / "write-a-workflow.md", tmp_path)
    shell = Shell(tmp_path, database_url, amqp_url, workflows="network")
    written = [block.text.replace("\\\n", " ") for block in blocks(DOCS / "product-migrations.md", "sh")]
    prepare = [line for text in written for line in text.splitlines() if line.startswith("orchestrator db ")]
    assert len(prepare) == 3
    for line in (*prepare, "orchestrator db migrate-workflows", "orchestrator db upgrade"):
        shell.run(*shlex.split(line))
    assert "nothing to do" in shell.run("orchestrator", "db", "migrate-domain-models")
    migrate_as_shown(shell, "vlans")

    def only(product: str) -> str:
        (found,) = shell.json("subscriptions", "list", "--product", product)
        return str(found["subscription_id"])

    with shell.dev():
        page = {"customer_id": "ACME", "node_name": "ams-1", "address": "192.0.2.1"}
        shell.start("create_node", {"product": shell.choice("create_node", {}, "Node PE")}, page)
        node = {"subscription_id": only("Node PE")}
        (found,) = shell.json("subscriptions", "list", "--product", "Node PE")
        assert found["description"] == "ams-1 (192.0.2.1)"
        shell.start("count_vlans")
        shell.start("tidy_up_contacts")
        shell.start("modify_node", node, {"address": "198.51.100.1"})
        product = {"product": shell.choice("create_port", {}, "Port 10G")}
        page = {"customer_id": "ACME", "port_name": "xe-0/0/1"}
        page["node"] = shell.choice("create_port", product, "ams-1 (198.51.100.1)")
        shell.start("create_port", product, page)
        port = {"subscription_id": only("Port 10G")}
        shell.start("upgrade_port", port, {"new_product": shell.choice("upgrade_port", port, "Port 100G")})
        assert only("Port 100G") == port["subscription_id"]

        refused = shell.json("start", "terminate_node", "--input", json.dumps(node), code=1)
        (reason,) = refused["reasons"]
        assert reason == {
            "key": usability.IN_USE,
            "unterminated_in_use_by_subscriptions": [port["subscription_id"]],
        }
        shell.start("validate_node", node, status="inconsistent_data")
        (found,) = shell.json("subscriptions", "list", "--out-of-sync")
        assert found["subscription_id"] == node["subscription_id"]
        shell.run("orchestrator", "abort", found["locked_by"])
        shell.run("orchestrator", "subscriptions", "set-in-sync", node["subscription_id"], "--reason", "it is right")

        shell.start("terminate_port", port)
        refused = shell.json("start", "terminate_node", "--input", json.dumps(node), "--user", "nobody", code=1)
        assert refused["error"] == "ForbiddenError"
        shell.start("terminate_node", node, user="noc")
        assert len(shell.json("subscriptions", "list", "--status", "terminated")) == 2
        shell.start("validate_nodes")


def test_the_tests_that_a_page_shows_pass(project: Path) -> None:
    write_files(DOCS / "write-a-workflow.md", project)
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_network.py"],
        cwd=project,
        env={"PYTHONPATH": f"{project}:{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "4 passed" in outcome.stdout


def test_the_first_workflow_has_twenty_lines() -> None:
    (block,) = blocks(REPOSITORY / "README.md", "python")
    assert len([line for line in block.text.splitlines() if line.strip()]) == 20
