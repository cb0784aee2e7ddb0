"""The page that says where each name of orchestrator-core is: from the table that ``orchestrator port`` goes by."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from orchestrator.cli.ported_names import KEPT, MOVED, NOT_OFFERED, PACKAGES_NOT_OFFERED

PAGE = "docs/port-names.md"

_HEAD = """# Where the names of orchestrator-core are

<!-- Generated, do not edit: scripts/generate-docs. The source is orchestrator/cli/ported_names.py. -->

For [ports](port.md); `orchestrator port` goes by the same table. The names are those of versions 2 to 5: version 5 has them below
`orchestrator.core`, so take `.core` out and look here. `orchestrator.db.models` has the names of `orchestrator.db`.
"""


def pages(root: Path) -> dict[str, str]:
    """Return the page."""
    del root
    return {PAGE: "\n".join([_HEAD, *_kept(), *_moved(), *_not_offered()]) + "\n"}


def _kept() -> list[str]:
    rows = [f"| `{module}` | {_list(names)} |" for module, names in sorted(KEPT.items())]
    return ["## At the same place", "", "| module | names |", "| --- | --- |", *rows, ""]


def _moved() -> list[str]:
    grouped = defaultdict(list)
    for old, new in sorted(MOVED.items()):
        (old_module, old_name), (new_module, new_name) = old.split(":"), new.split(":")
        grouped[old_module, new_module].append(
            f"`{old_name}`" if new_name == old_name else f"`{old_name}` → `{new_name}`"
        )
    rows = [f"| `{old}` | `{new}` | {', '.join(names)} |" for (old, new), names in grouped.items()]
    return ["## Elsewhere", "", "| in | now in | names |", "| --- | --- | --- |", *rows, ""]


def _not_offered() -> list[str]:
    grouped = defaultdict(list)
    for name, advice in sorted(NOT_OFFERED.items()):
        module, _, last = name.partition(":")
        grouped[module, advice].append(last)
    rows = [f"| `{module}` | {_list(names)} | {_cell(advice)} |" for (module, advice), names in grouped.items()]
    packages = [
        f"| `{name}` | anything else | {_cell(advice)} |" for name, advice in sorted(PACKAGES_NOT_OFFERED.items())
    ]
    return ["## Not here", "", "| in | name | instead |", "| --- | --- | --- |", *rows, *packages]


def _list(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _cell(advice: str) -> str:
    return advice.replace("|", "\\|")
