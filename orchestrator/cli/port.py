"""Port an application that was written for orchestrator-core: ``orchestrator port``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.context import REFUSED, CliContext, execute
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.errors import OrchestratorError, RequestError

_NO_LIBCST = "'orchestrator port' needs libcst, which is not installed: pip install 'orchestrator[port]'"


def port(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…",
            exists=True,
            help="Folders and files: all that belongs together, in one call.",
            show_default=False,
        ),
    ],
    check: Annotated[
        bool,
        typer.Option(
            "--check", metavar="", help="Write nothing: show the changes as a diff, and exit with 1 if there are any."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Port an application that was written for orchestrator-core: change what is mechanical, list what is not.

    Imports get the names of this package, and functions that use the database get the step's session. The formatting stays.
    What is left to you is listed with file and line. Repeating it changes nothing more. A file that cannot be parsed is left
    alone, and the exit code is 1. No server is needed, and nothing of the application is run.

    Example: orchestrator port --check src/
    """

    async def body(context: CliContext) -> int:
        try:
            from orchestrator.cli.codemod import find_sources, port_files  # with libcst, which nothing else needs
        except ModuleNotFoundError as error:
            if error.name != "libcst":
                raise
            raise OrchestratorError(_NO_LIBCST) from error

        files = find_sources(places)
        if not files:
            raise RequestError(f"no Python file in {', '.join(map(str, places))}")
        ported = port_files({path: path.read_bytes() for path in files})
        changed = [one for one in ported if one.after != one.before]
        unreadable = [one for one in ported if one.unreadable]
        if not check:
            for one in changed:
                one.path.write_bytes(one.after)
        findings = [(one.path, finding) for one in ported for finding in one.findings]
        output = context.output
        output.document(
            {
                "files": len(files),
                "changed": [{"path": str(one.path), "diff": one.diff} for one in changed],
                "unreadable": [{"path": str(one.path), "reason": one.unreadable} for one in unreadable],
                "remaining": [
                    {"path": str(path), "line": one.line, "rule": one.rule, "text": one.text} for path, one in findings
                ],
            }
        )
        for one in changed:
            for line in one.diff.splitlines() if check else [f"changed {one.path}"]:
                output.line(clean(line, lines=True))
        for path, finding in findings:
            output.prose(clean(f"{path}:{finding.line}: {finding.rule}: {finding.text}"))
        for one in unreadable:
            output.prose(clean(f"{one.path}: left alone, it cannot be parsed: {one.unreadable}"))
        would = "would change" if check else "changed"
        output.line(
            f"{len(files)} files: {would} {len(changed)}; {len(findings)} places are left to you (docs/port.md)"
        )
        return REFUSED if unreadable or (check and changed) else 0

    execute(body, as_json=as_json, needs_settings=False)
