"""Source files as concrete syntax trees, and what the names in them stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst
from libcst import matchers as m
from libcst.helpers import get_full_name_for_node
from libcst.metadata import MetadataWrapper, PositionProvider

Statement = cst.ImportFrom | cst.Import


@dataclass(eq=False)
class Source:
    """One file, parsed.

    Args:
        path: where it is.
        wrapper: the tree, with the positions of its nodes.
        names: what each imported name stands for, with dots.
    """

    path: Path
    wrapper: MetadataWrapper
    names: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = dict(_imported(self.tree))

    @classmethod
    def parse(cls, path: Path, text: bytes) -> Source:
        """Parse a file.

        Raises:
            libcst.ParserSyntaxError: it is not Python of a version that libcst knows.
        """
        return cls(path, MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True))

    @property
    def tree(self) -> cst.Module:
        """The tree."""
        return self.wrapper.module

    def line(self, node: cst.CSTNode) -> int:
        """Return the line on which a node begins."""
        return int(self.wrapper.resolve(PositionProvider)[node].start.line)

    def stands_for(self, node: cst.CSTNode) -> str:
        """Return the dotted name of an expression, with what was imported in place of the local name; else ``''``."""
        written = get_full_name_for_node(node) if m.matches(node, m.Name() | m.Attribute()) else None
        if not written:
            return ""
        first, dot, rest = written.partition(".")
        return f"{self.names.get(first, first)}{dot}{rest}"

    def changed(self, tree: cst.Module) -> Source:
        """Return the file with another tree."""
        return self if tree is self.tree else self.parse(self.path, tree.bytes)


def dotted(node: cst.CSTNode | None) -> str:
    """Return the dotted name that an import has; ``''`` for none."""
    return (get_full_name_for_node(node) or "") if node is not None else ""


def local_name(alias: cst.ImportAlias) -> str:
    """Return the name that an import binds."""
    return dotted(alias.asname.name) if alias.asname else dotted(alias.name)


def _imported(tree: cst.Module) -> Iterator[tuple[str, str]]:
    for node in m.findall(tree, m.ImportFrom() | m.Import()):
        if isinstance(node, cst.ImportFrom) and not isinstance(node.names, cst.ImportStar):
            module = "." * len(node.relative) + dotted(node.module)
            for alias in node.names:
                yield local_name(alias), f"{module}{'' if module.endswith('.') else '.'}{dotted(alias.name)}"
        elif isinstance(node, cst.Import):
            for alias in node.names:
                yield local_name(alias).partition(".")[0], dotted(alias.name if alias.asname else _first(alias))


def _first(alias: cst.ImportAlias) -> cst.BaseExpression:
    name: cst.BaseExpression = alias.name
    while isinstance(name, cst.Attribute):
        name = name.value
    return name


class Project:
    """All files of an application, by what they are imported as."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._by_name: dict[str, list[tuple[tuple[str, ...], Source]]] = {}
        for source in sources:
            parts = (*source.path.parent.parts, source.path.stem)
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            self._by_name.setdefault(parts[-1], []).append((parts, source))

    def find(self, name: str, importer: Source) -> Source | None:
        """Return the file of a module; ``None`` if it is not part of the application, or if several could be meant."""
        folders = importer.path.parent.parts
        stripped = name.lstrip(".")
        dots = len(name) - len(stripped)
        wanted = tuple(stripped.split("."))
        if dots:
            wanted = (*folders[: len(folders) - dots + 1], *(wanted if stripped else ()))
        found = [one for parts, one in self._by_name.get(wanted[-1], ()) if parts[-len(wanted) :] == wanted]
        return found[0] if len(found) == 1 else None
