"""Rewrite imports of orchestrator-core to where the names are now. What cannot be found stays, and is reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst
from libcst.helpers import parse_template_expression

from orchestrator.cli.codemod.names import ROOT, resolve, resolve_module
from orchestrator.cli.codemod.source import Source, dotted, local_name


def rewrite_imports(source: Source) -> Source:
    """Return the file with the imports that can be rewritten."""
    return source.changed(source.tree.visit(_Imports()))


def unresolved_imports(source: Source) -> Iterator[tuple[cst.CSTNode, str]]:
    """Find what is imported from orchestrator-core and is not here: the place and the dotted name."""
    visitor = _Unresolved()
    source.tree.visit(visitor)
    yield from visitor.found


class _Imports(cst.CSTTransformer):
    def leave_SimpleStatementLine(  # noqa: N802 - libcst's name
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.SimpleStatementLine]:
        del original_node
        statement = updated_node.body[0]
        if len(updated_node.body) > 1 or not isinstance(statement, cst.ImportFrom | cst.Import):
            return updated_node
        made = _split(statement) if isinstance(statement, cst.ImportFrom) else [_renamed(statement)]
        if made == [statement]:
            return updated_node
        first, *others = made
        lines = [updated_node.with_changes(body=[first])]
        lines += [cst.SimpleStatementLine([other]) for other in others]
        return cst.FlattenSentinel(lines)


def _split(statement: cst.ImportFrom) -> list[cst.ImportFrom]:
    """Give the names to the modules in which they are now, in the order in which these come up."""
    module = dotted(statement.module)
    if statement.relative or not _ours(module) or isinstance(statement.names, cst.ImportStar):
        return [statement]
    by_module: dict[str, list[cst.ImportAlias]] = {}
    for alias in statement.names:
        old = dotted(alias.name)
        new_module, _, new = (resolve(f"{module}.{old}") or f"{module}.{old}").rpartition(".")
        if new != old:
            alias = cst.ImportAlias(  # noqa: PLW2901 - the same name, from elsewhere
                cst.Name(new), None if new == local_name(alias) else cst.AsName(cst.Name(local_name(alias)))
            )
        by_module.setdefault(new_module, []).append(alias)
    if list(by_module) == [module]:
        return [statement]
    if len(by_module) == 1:
        (only,) = by_module
        if all(new is old for new, old in zip(by_module[only], statement.names, strict=True)):
            return [statement.with_changes(module=_expression(only))]
    return [_import(name, aliases, statement) for name, aliases in by_module.items()]


def _import(module: str, aliases: Sequence[cst.ImportAlias], like: cst.ImportFrom) -> cst.ImportFrom:
    """Import names from a module: one a line, where several were so before."""
    before = () if isinstance(like.names, cst.ImportStar) else like.names
    if len(aliases) == 1 or like.lpar is None or len(before) == 1:
        plain = [alias.with_changes(comma=cst.MaybeSentinel.DEFAULT) for alias in aliases]
        return cst.ImportFrom(_expression(module), plain)
    *others, last = aliases
    names = [alias.with_changes(comma=before[0].comma) for alias in others]
    names.append(last.with_changes(comma=before[-1].comma))
    return cst.ImportFrom(_expression(module), names, lpar=like.lpar, rpar=like.rpar)


def _renamed(statement: cst.Import) -> cst.Import:
    """Rewrite ``import orchestrator.core.x as y``. Without ``as``, uses of the name would have to follow: left alone."""
    names = []
    for alias in statement.names:
        name = dotted(alias.name)
        new = resolve_module(name) if _ours(name) and alias.asname else None
        names.append(alias.with_changes(name=_expression(new)) if new and new != name else alias)
    return statement if all(new is old for new, old in zip(names, statement.names, strict=True)) else cst.Import(names)


class _Unresolved(cst.CSTVisitor):
    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, str]] = []

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:  # noqa: N802 - libcst's name
        module = dotted(node.module)
        if node.relative or not _ours(module):
            return
        if isinstance(node.names, cst.ImportStar):
            self.found.append((node, f"{module}.*"))
            return
        for alias in node.names:
            name = f"{module}.{dotted(alias.name)}"
            if resolve(name) is None:
                self.found.append((alias, name))

    def visit_Import(self, node: cst.Import) -> None:  # noqa: N802 - libcst's name
        for alias in node.names:
            name = dotted(alias.name)
            if _ours(name) and resolve_module(name) != name:
                self.found.append((alias, name))


def _ours(module: str) -> bool:
    return module == ROOT or module.startswith(f"{ROOT}.")


def _expression(name: str) -> cst.Attribute | cst.Name:
    made = parse_template_expression(name)
    assert isinstance(made, cst.Attribute | cst.Name)  # noqa: S101 - it is a dotted name
    return made
