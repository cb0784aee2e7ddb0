"""The command line: ``orchestrator …``. It parses, opens transactions, calls the use cases and shows the outcome."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator import __version__
from orchestrator.cli.commands import MARKUP, Root

HELP = """
A workflow engine on PostgreSQL and RabbitMQ.

Settings come from the environment and from .env: ORCHESTRATOR_DATABASE_URL, ORCHESTRATOR_AMQP_URL and
ORCHESTRATOR_WORKFLOWS (the modules with your workflows; the current folder is searched, too).

Exit codes: 0 done, 1 refused or failed, 2 wrong usage; of --wait and watch also 3 needs input, 4 not ended in time.
Every command that prints takes --json: one document on stdout. Times are those of this computer's zone, or of --utc.

[bold]Begin with[/]:  orchestrator db upgrade;  orchestrator db migrate-workflows;  orchestrator db upgrade;
orchestrator dev;  and in another terminal  orchestrator start my_workflow --wait
"""

app = typer.Typer(
    name="orchestrator",
    cls=Root,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _use_utc(wanted: bool) -> None:
    if wanted:
        os.environ["TZ"] = "UTC"
        time.tzset()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"orchestrator {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, metavar="", help="Show the version and exit.")
    ] = False,
    utc: Annotated[
        bool,
        typer.Option("--utc", callback=_use_utc, metavar="", help="Show and read times in UTC, not in the local zone."),
    ] = False,
) -> None:
    """Read the options that stand before a command."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the exit code leaves as ``SystemExit``.

    Args:
        argv: the arguments after the program's name; default those of this process.
    """
    try:
        app(args=None if argv is None else list(argv), prog_name="orchestrator")
    except OSError as error:
        if error.errno != errno.ENOSPC:  # a pipe that its reader has closed is the library's
            raise
        # Of what the library prints itself, --help say: commands have reported theirs.
        from orchestrator.cli.output import Output

        output = Output(as_json=False)
        output.complain(f"the output could not be written: {error}")
        output.discard()
        raise SystemExit(1) from error
