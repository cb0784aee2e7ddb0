"""``orchestrator db migrate-domain-models``: the migration that leads from the database's catalogue to the code's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator.cli.context import REFUSED, CliContext, execute
from orchestrator.cli.migrations import report_written, require_applied, require_modules, write_calls
from orchestrator.cli.options import AsJson, check_text
from orchestrator.cli.output import clean
from orchestrator.db.registration.autogenerate import diff_catalogues
from orchestrator.errors import InvalidInputError
from orchestrator.services.model_catalogue import list_changes, list_missing
from orchestrator.services.model_comparison import ModelComparison, compare_models
from orchestrator.services.model_drift import Finding

_OPTION = "--fixed-input"
_DRIFT = "These models cannot load all subscriptions that there are. Complete the calls that fit, and remove their #:"


def migrate_domain_models(
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", callback=check_text, help="What the revision is for.")
    ] = "domain models",
    fixed_input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRODUCT:NAME=VALUE",
            callback=check_text,
            help="A product's fixed input, where the code does not say what it is; repeat it for each.",
        ),
    ] = None,
    drop_values: Annotated[
        bool,
        typer.Option(
            "--drop-values", metavar="", help="Also remove resource types of which subscriptions hold values."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the migration that makes the database know the products and blocks of SUBSCRIPTION_MODEL_REGISTRY, and no others.

    Nothing that subscriptions hold is deleted unless you say so: a product with subscriptions is retired; a block that
    subscriptions have, or a resource type of which they hold values, is left as it is and listed.

    Subscriptions that the models cannot load are listed, with what to write; then the exit code is 1.

    Review the file, then apply it with: orchestrator db upgrade

    Example: orchestrator db migrate-domain-models --fixed-input "Node P:role=P"
    """
    given = _read_fixed_inputs(fixed_input or [])

    async def body(context: CliContext) -> int:
        require_modules(context)
        context.load_workflows()
        async with context.database() as database:
            await require_applied(context, database)
            try:
                async with database.transaction() as session:
                    found = await compare_models(session, given, drop_values=drop_values)
            except InvalidInputError as error:
                raise typer.BadParameter(str(error), param_hint=_OPTION) from error
        _write(context, message, found)
        return REFUSED if found.drift else 0

    execute(body, as_json=as_json)


def _write(context: CliContext, message: str, found: ModelComparison) -> None:
    stored, plan, drift = found.stored, found.plan, found.drift
    after = plan.catalogue
    helpers = sorted({name for one in drift for name in one.helpers})
    remarks = [line for one in drift if one.calls for line in (one.place, *one.calls)]
    path = write_calls(
        context.project,
        message,
        diff_catalogues(stored, after, plan.dropped),
        diff_catalogues(after, stored),
        [_DRIFT, *remarks] if remarks else (),
        helpers,
    )
    contents = {
        "added": list_missing(after, stored),
        "removed": list_missing(stored, after),
        "changed": list_changes(stored, after, plan.dropped),
        "left_out": plan.left_out,
    }
    context.output.document({"path": path, **contents, "unloadable": [str(one) for one in drift]})
    for word, some in zip(("adds", "removes", "changes", "leaves out"), contents.values(), strict=True):
        for one in some:
            context.output.line(f"{word} {clean(one)}")
    if path is not None:
        report_written(context, path)
    else:
        same = "the database has the products and blocks of the code"
        context.output.line(f"nothing to {'write' if drift else 'do'}: {same}")
    if drift:
        _report_drift(context, drift, helpers, is_written=path is not None)


def _report_drift(context: CliContext, drift: Sequence[Finding], helpers: list[str], *, is_written: bool) -> None:
    context.output.line(("but these models cannot load all subscriptions that there are:", "red"))
    for one in drift:
        context.output.line(f"  • {clean(str(one))}")
    if not helpers:
        return
    if is_written:
        context.output.line(("the file has these calls as comments: complete those that fit and remove their #", "dim"))
        for helper in sorted({"rename_product", "rename_product_block"}.intersection(helpers)):
            context.output.line((f"{helper} replaces all lines that name the old or the new one", "dim"))
    else:
        imports = f"from orchestrator.db.registration import {', '.join(helpers)}"
        context.output.line(
            (f"write the calls that fit into a file that 'orchestrator db revision' makes, with {imports}", "dim")
        )
    context.output.line(("then apply it, and run this again", "dim"))


def _read_fixed_inputs(written: list[str]) -> dict[tuple[str, str], str]:
    given = {}
    for text in written:
        place, equals, value = text.partition("=")
        product, colon, name = place.rpartition(":")
        if not (equals and colon and product and name and value):
            raise typer.BadParameter(f'{text!r} is not PRODUCT:NAME=VALUE, such as "Node P:role=P"', param_hint=_OPTION)
        given[product, name] = value
    return given
