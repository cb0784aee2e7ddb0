"""Commands about subscriptions: ``orchestrator subscriptions …``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson, User, check_text, user_name
from orchestrator.cli.output import Output, clean, coloured
from orchestrator.cli.render import compact, entry_line, fields_of, process_document, short, when
from orchestrator.db.lookup import find_process, find_subscription
from orchestrator.db.subscriptions.history import PAGE, ProcessHistory, SubscriptionChange
from orchestrator.db.subscriptions.holders import read_holders
from orchestrator.db.subscriptions.neighbours import SubscriptionReference
from orchestrator.db.subscriptions.queries import Holder, ShownSubscription, SubscriptionSummary
from orchestrator.db.subscriptions.tree import ShownBlock
from orchestrator.engine.log import count_tries
from orchestrator.registry import known_workflows
from orchestrator.services import subscriptions
from orchestrator.services.subscriptions import Offer
from orchestrator.types import SubscriptionLifecycle

Subscription = Annotated[
    str, typer.Argument(metavar="ID", help="The subscription; its first 8 or more characters will do.")
]

_NEIGHBOURS = 20
"""Related subscriptions that are shown to people; there may be thousands."""

_CHANGE, _CHANGE_DIGITS = "change-", 18
"""Before the number of a change, where a process might be meant as well; digits of the largest that PostgreSQL takes."""


def list_command(
    search: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            callback=check_text,
            help="Only subscriptions with these words in the description, customer, note, product, id, or the values of their"
            ' blocks: node ams*, "site 7", -terminated, note:fibre.',
        ),
    ] = None,
    status: Annotated[
        list[SubscriptionLifecycle] | None,
        typer.Option("--status", metavar="STATUS", help="Only subscriptions in this status; repeatable."),
    ] = None,
    product: Annotated[
        str | None,
        typer.Option(metavar="NAME", callback=check_text, help="Only subscriptions of this product: its name or id."),
    ] = None,
    customer: Annotated[
        str | None, typer.Option(metavar="ID", callback=check_text, help="Only subscriptions of this customer.")
    ] = None,
    out_of_sync: Annotated[
        bool | None,
        typer.Option("--out-of-sync/--in-sync", metavar="", help="Only those that are out of sync, or in sync."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="How many at most.")] = 30,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="The page after this subscription, the last of the page before.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List subscriptions, the newest first.

    Example: orchestrator subscriptions list --search 'ams* 10G' --status active --out-of-sync
    """

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            filters: dict[str, Any] = {
                "statuses": [one.value for one in status or ()],
                "product": product,
                "customer": customer,
                "insync": None if out_of_sync is None else not out_of_sync,
                "limit": limit,
                "after": None if after is None else await find_subscription(session, after),
            }
            found = (
                await subscriptions.list_subscriptions(session, **filters)
                if search is None
                else await subscriptions.search_subscriptions(session, search, **filters)
            )
            holders = await read_holders(session, {one.locked_by for one in found if one.locked_by is not None})

        def held_by(one: SubscriptionSummary) -> Holder | None:
            return None if one.locked_by is None else holders.get(one.locked_by)

        context.output.document(
            [fields_of(one) | {"held_by": None if (held := held_by(one)) is None else fields_of(held)} for one in found]
        )
        context.output.table(
            ("id", "product", "status", "in sync", "created", "customer", "description"),
            [
                (
                    str(one.subscription_id),
                    clean(one.product),
                    coloured(one.status),
                    _show_sync(one.insync, held_by(one)),
                    when(one.created_at),
                    clean(one.customer_id),
                    clean(one.description, limit=80),
                )
                for one in found
            ],
            prose="description",
            empty="no subscriptions",
        )
        if len(found) == limit:
            context.output.line((f"there may be more: --after {short(found[-1].subscription_id)}", "dim"))

    execute(body, as_json=as_json)


def show(subscription: Subscription, as_json: AsJson = False) -> None:
    """Show what a subscription is: its blocks and their values, who holds it, what it uses and what uses it."""

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            found = await subscriptions.show(session, await find_subscription(session, subscription))
        context.output.document(_document(found))
        _header(context.output, found)
        context.output.line()
        for block, place in _name_places(found.blocks):
            _block(context.output, block, found, place, depth=0)
        if not found.blocks:
            context.output.line(("no blocks", "dim"))
        _related(context.output, "uses", found.neighbours.uses)
        _related(context.output, "in use by", found.neighbours.in_use_by)

    execute(body, as_json=as_json)


def history(
    subscription: Subscription,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="How many processes and other changes at most.")
    ] = PAGE,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="The page before this process or change-NUMBER, the first of the page after it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what has happened to a subscription: every process that touched it, step by step, and every change.

    The last page comes first; its last line has the command for the page before.
    """

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            subscription_id = await find_subscription(session, subscription)
            end = None if before is None else await _read_page_end(session, before)
            found = await subscriptions.read_history(session, subscription_id, limit=limit, before=end)
        context.output.document(
            {
                "subscription_id": found.subscription_id,
                "processes": [
                    process_document(one.process, one.log) | {"changes": [fields_of(change) for change in one.changes]}
                    for one in found.processes
                ],
                "other_changes": [fields_of(change) for change in found.other_changes],
                "before": None if found.before is None else _name(found.before),
            }
        )
        for one in found.timeline():
            if isinstance(one, ProcessHistory):
                _process(context.output, one)
            else:
                _other_change(context.output, one)
        if found.before is not None:
            size = "" if limit == PAGE else f" --limit {limit}"
            more = f"history {short(subscription_id)}{size} --before {_name(found.before)}"
            context.output.line((f"what happened before: orchestrator subscriptions {more}", "dim"))
        elif not found.timeline():
            context.output.line(("nothing has happened to it" if before is None else "nothing happened before", "dim"))

    execute(body, as_json=as_json)


def workflows(subscription: Subscription, as_json: AsJson = False) -> None:
    """Show which workflows of its product may run on a subscription now, and why the others may not."""

    async def body(context: CliContext) -> None:
        # The project's own rules are in its modules.
        context.load_workflows()
        async with context.database() as database, database.transaction() as session:
            offers = await subscriptions.workflows_for(session, await find_subscription(session, subscription))
        context.output.document(
            [fields_of(one) | {"reasons": [reason.document() for reason in one.reasons]} for one in offers]
        )
        context.output.table(
            ("workflow", "target", "usable", "description / why not"),
            [(clean(one.name), one.target.value, *_show_verdict(one)) for one in offers],
            prose="description / why not",
            empty="its product has no workflows",
        )
        unknown = sorted({one.name for one in offers} - set(known_workflows()))
        if unknown:
            context.output.complain(
                f"note: this program does not know {', '.join(map(clean, unknown))}: set ORCHESTRATOR_WORKFLOWS to all modules of"
                " the project, or rules in the missing ones are not applied here"
            )

    execute(body, as_json=as_json)


def set_in_sync(
    subscription: Subscription,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", callback=check_text, help="Why; goes into the subscription's history.")
    ],
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Mark a subscription as in sync, once you have made sure that it is. Refused while an unfinished process holds it."""
    if not reason.strip():
        raise typer.BadParameter("give a reason", param_hint="--reason")

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            found = await find_subscription(session, subscription)
            changed = await subscriptions.set_in_sync(session, found, user, reason)
        context.output.document({"subscription_id": found, "changed": changed})
        context.output.line(f"subscription {found} {'is in sync now' if changed else 'was in sync already'}")

    execute(body, as_json=as_json)


async def _read_page_end(session: AsyncSession, written: str) -> UUID | int:
    """Read a process's id or the number of a change: ``change-17``, because digits alone may begin a process's id."""
    digits = written.removeprefix(_CHANGE)
    if digits != written and digits.isdecimal() and digits.isascii() and len(digits) <= _CHANGE_DIGITS:
        return int(digits)
    return await find_process(session, written)


def _name(one: UUID | int) -> str:
    return f"{_CHANGE}{one}" if isinstance(one, int) else str(one)


def _show_sync(insync: bool, holder: Holder | None = None) -> Text:
    if insync:
        return Text("yes")
    who = "" if holder is None else clean(f": {holder.workflow}, {holder.status}, {short(holder.process_id)}")
    return Text(f"no{who}", style="yellow")


def _show_verdict(offer: Offer) -> tuple[Text, Text]:
    if offer.dangerous:
        return Text("dangerous", style="yellow"), Text(f"{clean(offer.description)} – out of sync: use it with care")
    if offer.usable:
        return Text("yes", style="green"), Text(clean(offer.description))
    return Text("no", style="red"), Text("\n").join([Text(clean(reason.words)) for reason in offer.reasons])


def _document(found: ShownSubscription) -> dict[str, Any]:
    own = fields_of(found)
    summary, neighbours = own.pop("summary"), own.pop("neighbours")
    return {**fields_of(summary), **own, "uses": neighbours.uses, "in_use_by": neighbours.in_use_by}


def _header(output: Output, found: ShownSubscription) -> None:
    one = found.summary
    output.prose(("subscription  ", "dim"), str(one.subscription_id), (f"  version {one.version}", "dim"))
    output.prose(("description   ", "dim"), clean(one.description))
    inputs = "".join(f"  {name}={value}" for name, value in sorted(found.fixed_inputs.items()))
    output.prose(("product       ", "dim"), clean(one.product), (clean(f"  {found.product_type}{inputs}"), "dim"))
    output.prose(("customer      ", "dim"), clean(one.customer_id))
    sync = Text("in sync") if one.insync else Text("out of sync", style="yellow")
    if found.holder is not None:
        held = f", held by process {found.holder.process_id} ({found.holder.workflow}, {found.holder.status})"
        sync.append(clean(held))
    output.prose(("status        ", "dim"), coloured(one.status), "  ", sync)
    started = "not started" if one.start_date is None else f"from {when(one.start_date)}"
    ended = "" if one.end_date is None else f" to {when(one.end_date)}"
    output.prose(("life          ", "dim"), f"created {when(one.created_at)}, {started}{ended}")
    if one.note:
        output.prose(("note          ", "dim"), clean(one.note))


def _block(output: Output, block: ShownBlock, found: ShownSubscription, place: str, *, depth: int) -> None:
    title = Text.assemble((clean(place or "(in no field)"), "bold"), "  ", clean(block.name))
    title.append(f"  {block.subscription_instance_id}", style="dim")
    if block.label:
        title.append(f"  {clean(block.label)}")
    if block.owner_subscription_id != found.summary.subscription_id:
        title.append(f"  of subscription {block.owner_subscription_id}", style="cyan")
    if block.is_repeated:
        title.append("  (what is in it: see above)", style="dim")
    output.prose(title, indent=2 * depth)
    for name, value in sorted(block.resources.items()):
        output.prose(f"{clean(name)} = {clean(compact(value))}", indent=2 * depth + 2)
    for inner, name in _name_places(block.blocks):
        _block(output, inner, found, name, depth=depth + 1)


def _name_places(blocks: Sequence[ShownBlock]) -> Iterable[tuple[ShownBlock, str]]:
    """Yield blocks with the names of their places; rows do not distinguish a list of one block from a field with one block."""
    many = {block.field for block in blocks if block.position}
    for block in blocks:
        yield block, f"{block.field}.{block.position}" if block.field in many else block.field


def _related(output: Output, title: str, related: Sequence[SubscriptionReference]) -> None:
    if not related:
        return
    output.line()
    output.line((title, "bold"))
    output.table(
        ("id", "product", "status", "in sync", "description"),
        [
            (
                str(one.subscription_id),
                clean(one.product),
                coloured(one.status),
                _show_sync(one.insync),
                clean(one.description, limit=80),
            )
            for one in related[:_NEIGHBOURS]
        ],
        prose="description",
    )
    if len(related) > _NEIGHBOURS:
        output.line((f"and {len(related) - _NEIGHBOURS} more; --json has all", "dim"))


def _process(output: Output, one: ProcessHistory) -> None:
    process = one.process
    output.prose(
        (when(process.started_at), "dim"),
        "  ",
        (clean(process.workflow), "bold"),
        "  ",
        coloured(process.status),
        f"  started by {clean(process.started_by)}",
        (f"  process {process.process_id}", "dim"),
    )
    made: dict[tuple[str | None, int | None], list[SubscriptionChange]] = defaultdict(list)
    for change in one.changes:
        made[change.step, change.attempt].append(change)
    numbers = count_tries(one.log)
    for entry in one.log:
        output.prose(entry_line(entry, numbers.get(entry.sequence)))
        # What a step saved, it saved in the commit that wrote this entry.
        if entry.consumer is not None:
            _changes(output, made.pop((entry.name, entry.attempt), ()))
    for left in made.values():
        _changes(output, left)


def _other_change(output: Output, change: SubscriptionChange) -> None:
    by = f"  by {clean(change.author)}"
    process = "" if change.process_id is None else f"  process {change.process_id}, whose log was deleted"
    note = f"  ({clean(change.note)})" if change.note else ""
    output.prose((when(change.at), "dim"), ("  changed", "bold"), by, (process, "dim"), (note, "dim"))
    _changes(output, (change,), with_note=False)


def _changes(output: Output, changes: Iterable[SubscriptionChange], *, with_note: bool = True) -> None:
    for change in changes:
        for path, (old, new) in sorted(change.changes.items()):
            line = f"{clean(path)}: {clean(compact(old))} → {clean(compact(new))}"
            output.prose(line, (f"  version {change.version}", "dim"), indent=8)
        if change.note and with_note:
            output.prose((f"({clean(change.note)})", "dim"), indent=8)
