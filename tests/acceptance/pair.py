"""PostgreSQL and RabbitMQ for those who break them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.programs import program_environment
from tests.servers import Servers

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Pair:
    """A private PostgreSQL and RabbitMQ that tests may break, with everything in one folder."""

    folder: Path

    def run(self, *arguments: str) -> str:
        """Run scripts/services on them."""
        outcome = subprocess.run(
            [sys.executable, CHECKOUT / "scripts" / "services", "--dir", self.folder, *arguments],
            env=program_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=170,
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout

    def servers(self) -> Servers:
        """Return where they are."""
        variables = json.loads(self.run("env", "--json"))
        return Servers(
            variables["ORCHESTRATOR_DATABASE_URL"],
            variables["ORCHESTRATOR_AMQP_URL"],
            variables["ORCHESTRATOR_MANAGEMENT_URL"],
        )
