"""Port an application that was written for orchestrator-core: change what is mechanical, list what is not.

Works on source text alone; nothing of the application is imported. ``port_files`` is the front.
"""

from __future__ import annotations

from orchestrator.cli.codemod.files import PortedFile, find_sources, port_files
from orchestrator.cli.codemod.findings import Finding

__all__ = ["Finding", "PortedFile", "find_sources", "port_files"]
