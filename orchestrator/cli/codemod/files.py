"""Port the files of an application, all together: what one function needs, its callers in other files must have."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import libcst as cst

from orchestrator.cli.codemod.findings import Finding, review
from orchestrator.cli.codemod.hand_over import hand_over
from orchestrator.cli.codemod.imports import rewrite_imports
from orchestrator.cli.codemod.session import analyse
from orchestrator.cli.codemod.source import Source

_NOT_SOURCES = {"node_modules", "site-packages", "venv", "__pycache__"}


@dataclass(frozen=True)
class PortedFile:
    """One file.

    Args:
        path: where it is.
        before: as it was.
        after: as it is to be; the same when there is nothing to change, or when it cannot be parsed.
        findings: what is left for a person; the lines are those of ``after``.
        unreadable: why it cannot be parsed; ``''`` for one that can.
    """

    path: Path
    before: bytes
    after: bytes
    findings: tuple[Finding, ...] = ()
    unreadable: str = ""

    @property
    def diff(self) -> str:
        """The change, as a unified diff."""
        before, after = (one.decode(errors="replace").splitlines(keepends=True) for one in (self.before, self.after))
        return "".join(difflib.unified_diff(before, after, str(self.path), str(self.path)))


def find_sources(places: Iterable[Path]) -> list[Path]:
    """List the Python files in folders; files are themselves. Without those of environments and hidden folders."""
    found: dict[Path, None] = {}
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            folders = path.relative_to(place).parts[:-1] if place.is_dir() else ()
            if not any(one in _NOT_SOURCES or one.startswith(".") for one in folders):
                found[path] = None
    return list(found)


def port_files(files: Mapping[Path, bytes]) -> list[PortedFile]:
    """Port the files of an application. Nothing is written; what is ported already comes out as it went in."""
    sources: dict[Path, Source] = {}
    unreadable: dict[Path, str] = {}
    for path, text in files.items():
        try:
            sources[path] = Source.parse(path, text)
        except (cst.ParserSyntaxError, UnicodeDecodeError, LookupError) as error:
            unreadable[path] = _explain(error)
    ported = [hand_over(one) for one in analyse(rewrite_imports(one) for one in sources.values())]
    findings = review(ported)
    after = {one.path: one.tree.bytes for one in ported}
    return [
        PortedFile(path, text, after.get(path, text), tuple(findings.get(path, ())), unreadable.get(path, ""))
        for path, text in files.items()
    ]


def _explain(error: Exception) -> str:
    if isinstance(error, cst.ParserSyntaxError):
        return f"line {error.raw_line}: {error.message}"
    return str(error)
