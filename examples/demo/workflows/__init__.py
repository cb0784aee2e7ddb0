"""Which workflows this project has. They are named here and imported on first use."""

from __future__ import annotations

from orchestrator.workflows import LazyWorkflowInstance

LazyWorkflowInstance("examples.demo.workflows.provision_line", "provision_line")
