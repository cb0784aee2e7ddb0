"""The files of the repository, for the tests that judge them."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def files() -> list[str]:
    """All files that are, or would be, in the repository, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(name for name in set(listed) if (ROOT / name).is_file())


def modules(*packages: str) -> list[str]:
    """Return the Python files of these packages, or all."""
    prefixes = tuple(f"{package}/" for package in packages)
    return [name for name in files() if name.endswith(".py") and (not packages or name.startswith(prefixes))]


def text(name: str) -> str:
    """Return what is in a file."""
    return (ROOT / name).read_text()


def tree(name: str) -> ast.Module:
    """Return a module's syntax. To parse all takes 0.4 s; kept, it would make each garbage collection as much longer."""
    return ast.parse(text(name))
