"""Hand the step's session to the functions that need it."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst
from libcst import matchers as m

from orchestrator.cli.codemod.names import normalise
from orchestrator.cli.codemod.session import GLOBAL, SESSION, Analysis, is_partial
from orchestrator.cli.codemod.source import Source, dotted, local_name


def hand_over(analysis: Analysis) -> Source:
    """Return a file in which every function that needs the session gets it."""
    source = analysis.source
    given = [one for one in analysis.functions.values() if one.needs and one.can_be_given]
    name = _local_name(source, "sqlalchemy.orm.Session")
    transformer = _HandOver(
        source,
        {node for one in given for node in one.uses},
        {one.node for one in given if not one.has_session},
        name or ("OrmSession" if "Session" in source.names else "Session"),
    )
    tree = source.tree.visit(transformer)
    if transformer.annotated and not name:
        written = "Session as OrmSession" if "Session" in source.names else "Session"
        tree = _add_import(tree, "sqlalchemy.orm", written)
    if transformer.bound and not _local_name(source, "functools.partial"):
        tree = _add_import(tree, "functools", "partial")
    return source.changed(_without_db(tree, source))


def _local_name(source: Source, wanted: str) -> str:
    """Return under which name something was imported; ``''`` if it was not."""
    return next((local for local, stands_for in source.names.items() if stands_for == wanted), "")


class _HandOver(cst.CSTTransformer):
    def __init__(
        self, source: Source, uses: set[cst.CSTNode], functions: set[cst.FunctionDef], annotation: str
    ) -> None:
        super().__init__()
        self._source, self._uses, self._functions, self._annotation = source, uses, functions, annotation
        self._partial = cst.Name(_local_name(source, "functools.partial") or "partial")
        self._in_partial: set[cst.Arg] = set()
        self.annotated = False
        self.bound = False
        """Whether a function was bound to the session where none was bound to anything before."""

    def visit_Call(self, node: cst.Call) -> None:  # noqa: N802 - libcst's name
        if is_partial(node, self._source):
            self._in_partial.add(node.args[0])

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:  # noqa: N802 - libcst's name
        if is_partial(original_node, self._source) and original_node.args[0] in self._uses:
            function, *others = updated_node.args
            given = cst.Arg(cst.Name(SESSION), comma=function.comma)
            if not others:
                function = function.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
            return updated_node.with_changes(args=[function, given, *others])
        if original_node not in self._uses:
            return updated_node
        first = cst.Arg(cst.Name(SESSION))
        if updated_node.args:
            first = first.with_changes(comma=_comma(updated_node.whitespace_before_args))
        return updated_node.with_changes(args=[first, *updated_node.args])

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:  # noqa: N802 - libcst's name
        if original_node not in self._uses or original_node in self._in_partial:
            return updated_node
        self.bound = True
        given = [cst.Arg(updated_node.value), cst.Arg(cst.Name(SESSION))]
        return updated_node.with_changes(value=cst.Call(self._partial, given))

    def leave_Attribute(  # noqa: N802 - libcst's name
        self, original_node: cst.Attribute, updated_node: cst.Attribute
    ) -> cst.BaseExpression:
        if original_node not in self._uses:
            return updated_node
        if original_node.attr.value == "query":
            return cst.Call(cst.Attribute(cst.Name(SESSION), cst.Name("query")), [cst.Arg(updated_node.value)])
        return cst.Name(SESSION)

    def leave_FunctionDef(  # noqa: N802 - libcst's name
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef:
        if original_node not in self._functions:
            return updated_node
        self.annotated = True
        parameters = updated_node.params
        first = cst.Param(cst.Name(SESSION), cst.Annotation(cst.Name(self._annotation)))
        others = [parameters.params, parameters.kwonly_params, parameters.star_arg, parameters.star_kwarg]
        if any(others) and not (
            isinstance(parameters.star_arg, cst.MaybeSentinel) and not any(others[:2] + others[3:])
        ):
            first = first.with_changes(comma=_comma(updated_node.whitespace_before_params))
        return updated_node.with_changes(params=parameters.with_changes(params=[first, *parameters.params]))


def _comma(before: cst.BaseParenthesizableWhitespace) -> cst.Comma:
    """Return the comma after a first element: a new line where the elements have one each."""
    in_lines = isinstance(before, cst.ParenthesizedWhitespace)
    return cst.Comma(whitespace_after=before if in_lines else cst.SimpleWhitespace(" "))


def _add_import(tree: cst.Module, wanted: str, name: str) -> cst.Module:
    """Import a name where a sorter of imports would: in the block that imports the engine, or else at the top."""
    line = cst.parse_statement(f"from {wanted} import {name}")
    body = list(tree.body)
    places = [
        number
        for number, one in enumerate(body)
        if (module := _imported_module(one))
        and module != "__future__"
        and module < wanted
        and _imports_orchestrator(body, number)
    ]
    body.insert(places[-1] + 1 if places else _after_docstring(body), line)
    return tree.with_changes(body=body)


def _imports_orchestrator(body: Sequence[cst.CSTNode], number: int) -> bool:
    """Return whether a statement is in one block, without empty lines, with an import of the engine."""
    first = number
    while first and _imported_module(body[first - 1]) and not getattr(body[first], "leading_lines", ()):
        first -= 1
    last = number
    while (
        last + 1 < len(body) and _imported_module(body[last + 1]) and not getattr(body[last + 1], "leading_lines", ())
    ):
        last += 1
    return any(_imported_module(one).partition(".")[0] == "orchestrator" for one in body[first : last + 1])


def _imported_module(node: cst.CSTNode) -> str:
    statement = node.body[0] if isinstance(node, cst.SimpleStatementLine) else None
    if isinstance(statement, cst.ImportFrom) and not statement.relative:
        return dotted(statement.module)
    return dotted(statement.names[0].name) if isinstance(statement, cst.Import) else ""


def _after_docstring(body: Sequence[cst.CSTNode]) -> int:
    place = 0
    for number, one in enumerate(body):
        is_text = m.matches(one, m.SimpleStatementLine([m.Expr(m.SimpleString())]))
        if is_text or _imported_module(one) == "__future__":
            place = number + 1
    return place


def _without_db(tree: cst.Module, source: Source) -> cst.Module:
    """Drop the import of the global session where nothing uses it any more."""
    locals_ = [local for local, name in source.names.items() if f"{normalise(name)}.session" == GLOBAL]
    if not locals_ or m.findall(tree, m.Attribute(value=m.Name(locals_[0]))):
        return tree
    return tree.visit(_DropName(locals_[0]))


class _DropName(cst.CSTTransformer):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def leave_ImportFrom(  # noqa: N802 - libcst's name
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom | cst.RemovalSentinel:
        del original_node
        if isinstance(updated_node.names, cst.ImportStar):
            return updated_node
        kept = [one for one in updated_node.names if local_name(one) != self._name]
        if len(kept) == len(updated_node.names):
            return updated_node
        if not kept:
            return cst.RemoveFromParent()
        last = updated_node.names[-1].comma if updated_node.rpar else cst.MaybeSentinel.DEFAULT
        kept[-1] = kept[-1].with_changes(comma=last)
        return updated_node.with_changes(names=kept)
