"""Who may import whom, as pyproject.toml says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.architecture.repository import ROOT


def test_the_contracts_of_the_layers_hold() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")

    checked = subprocess.run([lint_imports], cwd=ROOT, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert " 0 broken." in checked.stdout


def test_the_core_is_imported_without_a_client_of_any_server() -> None:
    """What import-linter sees in the sources, seen once more by the interpreter."""
    program = (
        "import sys\n"
        "import orchestrator.engine.decide, orchestrator.engine.transitions, orchestrator.workflow\n"
        "print(*sorted({'aio_pika', 'aiormq', 'asyncpg', 'sqlalchemy', 'alembic', 'structlog'} & set(sys.modules)))"
    )

    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert printed.stdout.strip() == ""
