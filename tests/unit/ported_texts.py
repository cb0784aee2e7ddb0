"""Sources of an application for orchestrator-core, ported."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from orchestrator.cli.codemod import PortedFile, port_files


def port_texts(**texts: str) -> dict[str, PortedFile]:
    """Port files of a project by their names, with ``/`` written as two underscores."""
    files = {Path("project", f"{name.replace('__', '/')}.py"): dedent(text).encode() for name, text in texts.items()}
    return dict(zip(texts, port_files(files), strict=True))


def port_text(text: str) -> str:
    """Port one file."""
    return port_texts(module=text)["module"].after.decode()


def rules(text: str) -> list[tuple[int, str]]:
    """Return what is left to a person: lines and rules."""
    return [(one.line, one.rule) for one in port_texts(module=text)["module"].findings]
