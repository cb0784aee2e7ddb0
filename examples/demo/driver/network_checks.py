"""Is everything as it should be? Counted at the end of the second story, from rows and from what the command line says."""

from __future__ import annotations

from collections import Counter

from rich.table import Table
from rich.text import Text

from .amqp import read_dead_letters
from .network import Network
from .screen import STYLES

_PROCESSES = """
SELECT p.process_id, p.workflow, p.status, p.is_task, p.started_by, p.updated_at - p.started_at AS took,
       count(*) FILTER (WHERE l.kind = 'step' AND l.status IN ('success', 'complete')) AS steps,
       count(*) FILTER (WHERE l.kind = 'step' AND l.status = 'waiting') AS tried_again
  FROM processes p JOIN process_steps l USING (process_id)
 GROUP BY p.process_id ORDER BY p.started_at
"""
_DONE = """
SELECT process_id, name FROM process_steps WHERE kind = 'step' AND status IN ('success', 'complete')
"""
_CHANGES = """
SELECT s.subscription_id, s.description, s.version, c.version AS changed, c.process_id, c.author
  FROM subscriptions s LEFT JOIN subscription_changes c USING (subscription_id) ORDER BY c.change_id
"""
_LINKS = "SELECT process_id, subscription_id FROM processes_subscriptions"


async def judge_network(network: Network) -> None:
    """The last checks, and the figures."""
    network.screen.headline("Is everything as it should be?")
    await _processes(network)
    await _subscriptions(network)
    await _history(network)
    dead = await read_dead_letters(network.corner.amqp_url)
    network.expect("no message was useless: there are no dead letters", "; ".join(dead))


async def _processes(network: Network) -> None:
    found = await network.books.rows(_PROCESSES)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("workflow", "process", "started by", "status"):
        table.add_column(column)
    for column in ("steps", "tried again", "seconds"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(
            one["workflow"],
            str(one["process_id"])[:8],
            one["started_by"],
            Text(one["status"], STYLES.get(one["status"], "")),
            str(one["steps"]),
            str(one["tried_again"]),
            f"{one['took'].total_seconds():.1f}",
        )
    network.screen.console.print(table)
    network.screen.console.print()
    stuck = [f"{one['workflow']}: {one['status']}" for one in found if one["status"] not in {"completed", "aborted"}]
    network.expect("every process has ended", ", ".join(stuck))
    aborted = [str(one["process_id"]) for one in found if one["status"] == "aborted"]
    network.expect("none was aborted but the one that came second", len(aborted) > 1 and ", ".join(aborted))
    busy = [one["workflow"] for one in found if one["tried_again"]]
    network.expect("a busy controller was asked again, by the engine itself", "" if busy else "nothing was tried again")
    done = Counter((row["process_id"], row["name"]) for row in await network.books.rows(_DONE))
    twice = [f"{name} of {process_id}" for (process_id, name), times in done.items() if times > 1]
    network.expect("no step has succeeded twice", ", ".join(twice))


async def _subscriptions(network: Network) -> None:
    left = [
        one["description"]
        for one in await network.programs.command("subscriptions", "list", "--json")
        if (one["status"], one["insync"], one["locked_by"]) != ("terminated", True, None) or not one["end_date"]
    ]
    network.expect("every subscription is terminated, with an end date, and in sync; none is deleted", ", ".join(left))
    changed: dict[str, list[int]] = {}
    stands: dict[str, int] = {}
    strangers = []
    for row in await network.books.rows(_CHANGES):
        changed.setdefault(row["description"], []).append(row["changed"])
        stands[row["description"]] = row["version"]
        if row["process_id"] is None or not row["author"]:
            strangers.append(row["description"])
    gaps = [name for name, versions in changed.items() if sorted(set(versions)) != list(range(1, stands[name] + 1))]
    network.expect("each version of each subscription has its entry in the audit trail", ", ".join(gaps))
    network.expect("each change was made by a process, and has an author", ", ".join(strangers))


async def _history(network: Network) -> None:
    subscription_id = network.known["ams-1 edge"]
    told = await network.programs.command("subscriptions", "history", subscription_id, "--json")
    processes = {one["process_id"]: one for one in told["processes"]}
    linked = {
        str(row["process_id"])
        for row in await network.books.rows(_LINKS)
        if str(row["subscription_id"]) == subscription_id
    }
    network.expect("the history tells of every process that has touched the port", linked ^ set(processes))
    names = [one["workflow"] for one in told["processes"]]
    wanted = ["create_port", "change_port_speed", "terminate_port"]
    in_order = [name for name in names if name in wanted] == wanted
    network.expect("from its creation to its end", "" if in_order else names)
