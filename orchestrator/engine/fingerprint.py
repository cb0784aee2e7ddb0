"""Identify the parts of a workflow by values that are the same in every program with the same code.

Functions have no value of their own, so they are named: a function of a module by its qualified name; a lambda or a local
function by its source as well, because all of them have the same name, and by the simple values that it closes over. The
source, not the bytecode: that differs between versions of Python.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import io
import linecache
import math
import operator
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from hashlib import sha256
from textwrap import dedent
from types import CodeType, FunctionType, MethodType

from pydantic_core import to_json
from tenacity.wait import wait_base

from orchestrator.types import JSON, sort_keys

LENGTH = 16
"""Hexadecimal digits of a fingerprint: that two of a million plans are equal by chance is one to 37 million."""

MAX_DEPTH = 6
"""The most levels of nested values; deeper ones are identified by their class only."""

MAX_ITEMS = 50
"""The most items of a list, set or dict in an outline."""

_OPERATORS = (operator.itemgetter, operator.attrgetter, operator.methodcaller)
_SPACE_BESIDE_SIGN = re.compile(r"(?<=\W) | (?=\W)")


def compute_fingerprint(steps: Sequence[Mapping[str, JSON]]) -> str:
    """Return a short hash of the steps of a plan, as :meth:`orchestrator.engine.plan.Plan.of` describes them."""
    # Sorted by hand, because key order must not matter and to_json keeps it.
    return sha256(to_json([sort_keys(dict(step)) for step in steps])).hexdigest()[:LENGTH]


def identify(value: object, depth: int = 0) -> JSON:
    """Return an identifier of a value that is the same in all programs with the same code; never raises.

    Objects of unknown classes are named by their class: what they hold may differ from one start of a program to the next.
    """
    name = qualified_name(type(value))
    if isinstance(value, Enum):
        return f"{name}.{value.name}"
    if isinstance(value, str):
        return _printable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, type):
        return qualified_name(value)
    if depth >= MAX_DEPTH:
        return name
    if isinstance(value, list | tuple):
        return _shorten(name, [identify(one, depth + 1) for one in value])
    if isinstance(value, set | frozenset):
        return _shorten(name, sorted((identify(one, depth + 1) for one in value), key=to_json))
    if isinstance(value, dict):
        return _shorten(name, {str(key): identify(one, depth + 1) for key, one in value.items()})
    if isinstance(value, FunctionType):
        return _identify_function(value, depth)
    if isinstance(value, MethodType):
        return {"method": qualified_name(value.__func__), "of": identify(value.__self__, depth + 1)}
    if isinstance(value, functools.partial):
        parts = (value.func, list(value.args), value.keywords)
        return {"partial": [identify(one, depth + 1) for one in parts]}
    if isinstance(value, _OPERATORS):
        return repr(value)
    return _identify_object(value, name, depth)


def qualified_name(value: object) -> str:
    """Return the module and name of a class or function."""
    return f"{getattr(value, '__module__', '?')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _shorten(name: str, found: list[JSON] | dict[str, JSON]) -> JSON:
    """Replace a large collection by its hash, because outlines are stored and shown to people."""
    if len(found) <= MAX_ITEMS:
        return found
    return f"{name} of {len(found)}: {sha256(to_json(sort_keys(found))).hexdigest()[:LENGTH]}"


def _identify_object(value: object, name: str, depth: int) -> JSON:
    if inspect.isroutine(value):
        return qualified_name(value)
    fields: Mapping[str, object] = {}
    if isinstance(value, wait_base):
        # A wait strategy is identified by its parameters.
        fields = vars(value)
    elif dataclasses.is_dataclass(value) and getattr(type(value), "__dataclass_params__").frozen:  # noqa: B009 - unknown to mypy
        fields = {one.name: getattr(value, one.name, None) for one in dataclasses.fields(value)}
    if not fields:
        return name
    return {"class": name, **{str(key): identify(one, depth + 1) for key, one in sorted(fields.items())}}


def _identify_function(function: FunctionType, depth: int) -> JSON:
    name = qualified_name(function)
    if "<" not in name:
        return name
    found: dict[str, JSON] = {"function": name, "source": _normalised_source(function)}
    closed: dict[str, JSON] = {}
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            closed[variable] = identify(cell.cell_contents, depth + 1)
        except ValueError:
            closed[variable] = "unset"
    if closed:
        found["closes over"] = closed
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    if defaults:
        found["defaults"] = identify(defaults, depth + 1)
    return found


def _normalised_source(function: FunctionType) -> str:
    """Return the source of a lambda or local function without comments and layout; empty when there is no source."""
    code = function.__code__
    try:
        # Not by inspect.findsource, which resolves the paths of all modules to find the one that is known here.
        linecache.checkcache(code.co_filename)
        lines = linecache.getlines(code.co_filename, function.__globals__)
        segments = [_cut(lines, node) for node in _find_nodes(_list_functions("".join(lines)), code)]
    except (SyntaxError, ValueError, IndexError):
        return ""
    return " | ".join(_normalise(one) for one in segments)


def _normalise(source: str) -> str:
    return _printable(_SPACE_BESIDE_SIGN.sub("", " ".join(_without_comments(source).split())))


def _printable(text: str) -> str:
    """Return a text that JSON and the database can hold."""
    return text if text.isprintable() else ascii(text)


_Function = ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef


@functools.lru_cache(maxsize=64)
def _list_functions(source: str) -> tuple[_Function, ...]:
    return tuple(node for node in ast.walk(ast.parse(source)) if isinstance(node, _Function))


def _find_nodes(functions: Iterable[_Function], code: CodeType) -> list[_Function]:
    """Return the node that was compiled to ``code``: of several on its line the best fit, or all if nothing tells them apart."""
    nodes = [node for node in functions if _begins(node, code)]
    if len(nodes) < 2:  # noqa: PLR2004 - nothing to choose from
        return nodes
    places = [place for place in _places(code) if place[0] != place[1]]
    counts = [sum(_start(node) <= start and end <= _end(node) for start, end in places) for node in nodes]
    if not max(counts):
        # Python 3.12 has no positions for constants.
        constant = [node for node in nodes if _returns_constant(node, code)]
        return constant[:1] or nodes
    # The code of a lambda inside another lies in both: take the shortest node that contains the most of it.
    best = max(zip(counts, nodes, strict=True), key=lambda one: (one[0], _start(one[1])))
    return [best[1]]


def _returns_constant(node: _Function, code: CodeType) -> bool:
    return isinstance(node.body, ast.Constant) and repr(node.body.value) in map(repr, code.co_consts)


def _begins(node: _Function, code: CodeType) -> bool:
    if isinstance(node, ast.Lambda):
        names = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
        fits = names == list(code.co_varnames[: code.co_argcount])
        return fits and code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return node.name == code.co_name and first == code.co_firstlineno


_Place = tuple[int, int]


def _places(code: CodeType) -> Iterator[tuple[_Place, _Place]]:
    for line, end_line, column, end_column in code.co_positions():
        if line is not None and end_line is not None and column is not None and end_column is not None:
            yield (line, column), (end_line, end_column)


def _start(node: _Function) -> _Place:
    return node.lineno, node.col_offset


def _end(node: _Function) -> _Place:
    return node.end_lineno or node.lineno, node.end_col_offset or 0


def _cut(lines: list[str], node: _Function) -> str:
    if isinstance(node, ast.Lambda):
        # In parentheses it may have any line breaks.
        return f"({ast.get_source_segment(''.join(lines), node)})"
    return dedent("".join(lines[node.lineno - 1 : node.end_lineno]))


def _without_comments(source: str) -> str:
    lines = source.splitlines()
    read: Callable[[], str] = io.StringIO(source).readline
    try:
        comments = [one for one in tokenize.generate_tokens(read) if one.type == tokenize.COMMENT]
    except (tokenize.TokenError, SyntaxError):
        return source
    for comment in comments:
        row, column = comment.start
        lines[row - 1] = lines[row - 1][:column]
    return "\n".join(lines)
