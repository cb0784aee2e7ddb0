"""The workflows that run under random faults: every kind of step, and one that needs a subscription's lock."""

from __future__ import annotations

from orchestrator.workflows import LazyWorkflowInstance
from tests.chaos.project import products as products

PLAIN = ("chain", "plain", "asks", "calls_out", "flaky", "parent", "child")
ON_THINGS = ("create_thing", "modify_thing")
THINGS = ("Thing",)

for _name in PLAIN:
    LazyWorkflowInstance(f"{__name__}.steps", _name)
for _name in ON_THINGS:
    LazyWorkflowInstance(f"{__name__}.steps", _name, products=THINGS)
