"""The test kit's database for tests of the kit, on the servers of this run, with nothing registered but what ships."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from orchestrator import declared_schedules, registry
from orchestrator.settings import Settings
from orchestrator.testing import WorkflowDatabase, open_database
from tests.servers import Servers


def settings_of(servers: Servers) -> Settings:
    """Return the settings of a project without modules and migrations."""
    return Settings(database_url=servers.database, amqp_url="amqp://nowhere", migrations="there-is-none", workflows=())


@contextmanager
def kit_database(servers: Servers) -> Iterator[WorkflowDatabase]:
    """Provide the kit's database under a name of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_instances", {})
        patch.setattr(declared_schedules, "_declared", {})
        with open_database(settings_of(servers), worker=uuid4().hex[:8]) as database:
            yield database
