"""Find which functions need the step's session.

A function needs it when it makes, loads or saves a model, uses ``db.session``, or calls a function of the application that
needs it. The engine injects ``session`` into steps, forms and callbacks by its name; the others get it as first argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import libcst as cst
from libcst import matchers as m

from orchestrator.cli.codemod.names import asks_for_session, normalise, takes_session
from orchestrator.cli.codemod.source import Project, Source, dotted

SESSION: Final = "session"
MODEL_READS: Final = frozenset({"from_product_id", "from_subscription", "from_db", "from_other_product"})
"""Class methods of models that take the session first."""

MODEL_MAKERS: Final = MODEL_READS | {"from_other_lifecycle"}
"""What is assigned from one of these is a subscription or a block, whose ``save`` takes the session."""

ASKED_BY_NAME: Final = frozenset(
    {"initial_input_form", "run_predicate", "authorize_callback", "resume_auth_callback", "retry_auth_callback"}
)
"""Where functions are passed whose arguments the engine gives by their names."""

_STEPS: Final = frozenset({"step", "retrystep", "inputstep"})
_MOST_REEXPORTS: Final = 5

GLOBAL: Final = "orchestrator.db.db.session"
QUERIED: Final = re.compile(r"(Table|Row)$")
"""What a table is called, of which the global session would be asked by ``.query``."""

_IS_SESSION = m.Name(SESSION) | m.Attribute(attr=m.Name(SESSION))


@dataclass(eq=False)
class Function:
    """A function or method of the application that is not inside another function.

    Args:
        node: its definition.
        name: its name.
        is_method: whether it stands in a class.
        has_session: whether it has a parameter ``session`` already.
    """

    node: cst.FunctionDef
    name: str
    is_method: bool
    has_session: bool
    uses: list[cst.CSTNode] = field(default_factory=list)
    calls: list[tuple[cst.Call, str]] = field(default_factory=list)
    passed: list[tuple[cst.Arg, str]] = field(default_factory=list)
    values: list[tuple[cst.CSTNode, str]] = field(default_factory=list)
    """What is named to be called later; after the analysis, only what needs the session."""
    needs: bool = False
    wants: bool = False
    """Whether it calls what is not offered, and what is to take the place needs the session."""
    has_another: bool = False
    """Whether something else is called ``session`` in it, such as one of requests, in the module or in itself."""

    @property
    def can_be_given(self) -> bool:
        """Return whether the session can be handed to it without more thought."""
        hindered = self.is_method or self.node.asynchronous or self._is_workflow or self.has_another
        return self.has_session or not hindered

    @property
    def takes_it_first(self) -> bool:
        """Return whether its first parameter is the session."""
        return parameter_names(self.node)[:1] == [SESSION]

    @property
    def is_step(self) -> bool:
        """Return whether the engine calls it, with the arguments that it names."""
        return any(_decorator(one) in _STEPS for one in self.node.decorators)

    @property
    def _is_workflow(self) -> bool:
        return any(_makes_workflow(_decorator(one)) for one in self.node.decorators)


@dataclass(eq=False)
class Analysis:
    """What of a file needs the session.

    Args:
        functions: by name; methods by ``Class.name``.
        outside: what stands in no function and would need it.
    """

    source: Source
    functions: dict[str, Function]
    outside: Function


def analyse(sources: Iterable[Source]) -> list[Analysis]:
    """Find which functions of an application need the session."""
    made = [_collect(source) for source in sources]
    project = Project(one.source for one in made)
    by_source = {id(one.source): one for one in made}
    everyone = [(one, function) for one in made for function in (*one.functions.values(), one.outside)]
    for _, function in everyone:
        function.needs = bool(function.uses) or function.wants
    changed = True
    while changed:
        changed = False
        for analysis, function in everyone:
            named = (*function.calls, *function.passed)
            extra = [node for node, name in named if _needs(name, analysis, project, by_source)]
            new = [node for node in extra if node not in function.uses]
            function.uses += new
            changed = changed or bool(new)
            function.needs = function.needs or bool(new)
    for analysis, function in everyone:
        function.values = [one for one in function.values if _needs(one[1], analysis, project, by_source)]
    return made


def _needs(name: str, analysis: Analysis, project: Project, by_source: dict[int, Analysis]) -> bool:
    """Return whether the function that a name stands for is to be called with the session first."""
    found = analysis.functions.get(name)
    for _ in range(_MOST_REEXPORTS):
        module, _, last = name.rpartition(".")
        source = project.find(module, analysis.source) if found is None and module else None
        if source is None:
            break
        analysis = by_source[id(source)]
        found = analysis.functions.get(last)
        name = source.names.get(last, "")  # the file may only import it, for others to import it from there
    if found is None:
        return takes_session(normalise(name))
    if found.is_step or found.is_method or not found.can_be_given:
        return False
    return found.takes_it_first or (found.needs and not found.has_session)


def _collect(source: Source) -> Analysis:
    visitor = _Collector(source)
    source.tree.visit(visitor)
    return Analysis(source, visitor.functions, visitor.outside)


class _Collector(cst.CSTVisitor):
    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._classes: list[str] = []
        self.functions: dict[str, Function] = {}
        self.outside = Function(
            cst.FunctionDef(cst.Name("_"), cst.Parameters(), cst.IndentedBlock([])), "", False, False
        )
        self._current = self.outside
        self._depth = 0
        self._variables: set[str] = set()
        self._models: set[str] = set()
        self._asked_by_name: set[cst.Arg] = set()
        self._called: set[cst.BaseExpression] = set()

    def visit_ClassDef(self, node: cst.ClassDef) -> None:  # noqa: N802 - libcst's name
        if not self._depth:
            self._classes.append(node.name.value)

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:  # noqa: N802 - libcst's name
        del original_node
        if not self._depth:
            self._classes.pop()

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:  # noqa: N802 - libcst's name
        for part in (*node.decorators, node.params, node.returns):  # evaluated outside of the function
            if part is not None:
                part.visit(self)
        before, models, variables = self._current, self._models, self._variables
        if not self._depth:
            name = ".".join((*self._classes, node.name.value))
            self._current = Function(node, name, bool(self._classes), SESSION in parameter_names(node))
            self.functions[name] = self._current
            self._models = set()
            self._variables = variables_of(node)
        self._depth += 1
        node.body.visit(self)
        self._depth -= 1
        self._current, self._models, self._variables = before, models, variables
        return False

    def visit_Assign(self, node: cst.Assign) -> None:  # noqa: N802 - libcst's name
        called = node.value.func if isinstance(node.value, cst.Call) else None
        if isinstance(called, cst.Attribute) and called.attr.value in MODEL_MAKERS:
            self._models |= {one.target.value for one in node.targets if isinstance(one.target, cst.Name)}
        self._name(node.value)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:  # noqa: N802 - libcst's name
        self._name(node.value)

    def visit_Return(self, node: cst.Return) -> None:  # noqa: N802 - libcst's name
        self._name(node.value)

    def visit_Element(self, node: cst.Element) -> None:  # noqa: N802 - libcst's name
        self._name(node.value)

    def visit_DictElement(self, node: cst.DictElement) -> None:  # noqa: N802 - libcst's name
        self._name(node.value)

    def visit_IfExp(self, node: cst.IfExp) -> None:  # noqa: N802 - libcst's name
        self._name(node.body)
        self._name(node.orelse)

    def visit_BooleanOperation(self, node: cst.BooleanOperation) -> None:  # noqa: N802 - libcst's name
        self._name(node.left)
        self._name(node.right)

    def visit_Param(self, node: cst.Param) -> None:  # noqa: N802 - libcst's name
        self._name(node.default)

    def visit_Call(self, node: cst.Call) -> None:  # noqa: N802 - libcst's name
        self._called.add(node.func)
        if _makes_workflow(self._source.stands_for(node.func).rpartition(".")[2]):
            self._asked_by_name.update(node.args)
        if is_partial(node, self._source) and given_session(node.args[1:]):
            self._asked_by_name.add(node.args[0])
        if given_session(node.args):
            return
        called = node.func
        if isinstance(called, cst.Attribute):
            saves = called.attr.value == "save" and not node.args
            if called.attr.value in MODEL_READS or (
                saves and m.matches(called.value, m.Name()) and self._is_model(called.value)
            ):
                self._current.uses.append(node)
                return
        if name := self._stands_for(called):
            self._current.calls.append((node, name))
            self._current.wants = self._current.wants or asks_for_session(name)

    def visit_Name(self, node: cst.Name) -> None:  # noqa: N802 - libcst's name
        self._current.has_another = self._current.has_another or node.value == SESSION

    def visit_Attribute(self, node: cst.Attribute) -> bool:  # noqa: N802 - libcst's name
        is_query = node.attr.value == "query" and QUERIED.search(self._source.stands_for(node.value))
        if (is_query and node not in self._called) or normalise(self._source.stands_for(node)) == GLOBAL:
            self._current.uses.append(node)
        node.value.visit(self)  # alone: the name of an attribute is none of the function's
        return False

    def visit_Arg(self, node: cst.Arg) -> bool:  # noqa: N802 - libcst's name
        asked_by_name = node.keyword is not None and node.keyword.value in ASKED_BY_NAME
        if not (asked_by_name or node in self._asked_by_name) and (name := self._stands_for(node.value)):
            self._current.passed.append((node, name))
        node.value.visit(self)  # alone: a keyword is none of the function's names
        return False

    def _name(self, node: cst.BaseExpression | None) -> None:
        if node is not None and (name := self._stands_for(node)):
            self._current.values.append((node, name))

    def _stands_for(self, node: cst.BaseExpression) -> str:
        """Return the dotted name of an expression; ``''`` for one that begins with a variable of the function."""
        written = dotted(node).partition(".")[0]
        return "" if written in self._variables else self._source.stands_for(node)

    def _is_model(self, node: cst.BaseExpression) -> bool:
        return isinstance(node, cst.Name) and (node.value in self._models or node.value == "subscription")


def parameter_names(node: cst.FunctionDef) -> list[str]:
    """Return the names of a function's parameters."""
    parameters = node.params
    return [one.name.value for one in (*parameters.posonly_params, *parameters.params, *parameters.kwonly_params)]


def variables_of(node: cst.FunctionDef) -> set[str]:
    """Return the names that a function, and what is inside of it, binds: none of them is a function of the module."""
    bound = m.Param() | m.AssignTarget() | m.AnnAssign() | m.For() | m.CompFor() | m.NamedExpr() | m.WithItem()
    names: set[str] = set()
    for one in m.findall(node, bound):
        if isinstance(one, cst.Param):
            names.add(one.name.value)
        elif isinstance(one, cst.WithItem):
            names |= _names(one.asname)
        elif isinstance(one, cst.AssignTarget | cst.AnnAssign | cst.For | cst.CompFor | cst.NamedExpr):
            names |= _names(one.target)
    return names


def _names(node: cst.CSTNode | None) -> set[str]:
    """Return the names that a target binds."""
    if isinstance(node, cst.Name):
        return {node.value}
    if isinstance(node, cst.Tuple | cst.List):
        return {name for one in node.elements for name in _names(one.value)}
    return _names(node.name) if isinstance(node, cst.AsName) else set()


def given_session(arguments: Sequence[cst.Arg]) -> bool:
    """Return whether a call hands a session over already."""
    by_name = any(one.keyword is not None and one.keyword.value == SESSION for one in arguments)
    return by_name or bool(arguments and arguments[0].keyword is None and m.matches(arguments[0].value, _IS_SESSION))


def remaining(analysis: Analysis) -> Iterator[tuple[cst.CSTNode, str]]:
    """Find what would need the session and cannot be given it without thought: the place and why."""
    for one in (*analysis.functions.values(), analysis.outside):
        for node, name in one.values:
            yield (
                node,
                f"'{name}' needs the session and is named to be called later: 'partial({name.rpartition('.')[2]}, session)'",
            )
        for node in one.uses if one.needs and not (one.can_be_given and one.name) else ():
            if not one.name and isinstance(node, cst.Arg):
                yield node, "a function that needs the session is passed on: do that in a function that has the session"
            elif not one.name:
                yield (
                    node,
                    "the database is used while the module is imported: do it in a step or form, which gets the session",
                )
            elif one.node.asynchronous:
                yield node, f"'{one.name}' is async: ask for 'session: AsyncSession', hand it over, and await"
            elif one.has_another:
                yield node, f"'{one.name}' uses the database and something else that is called 'session': rename that"
            elif one.is_method:
                yield node, f"'{one.name}' is a method that uses the database: give it the session, and the callers too"
            else:
                yield (
                    node,
                    f"the workflow '{one.name}' uses the database while its steps are put together: do it in a step",
                )


def is_partial(node: cst.Call, source: Source) -> bool:
    """Return whether a call is one of ``functools.partial``."""
    return bool(node.args) and source.stands_for(node.func) == "functools.partial"


def _makes_workflow(name: str) -> bool:
    return name.endswith("workflow") or name == "task"


def _decorator(node: cst.Decorator) -> str:
    expression = node.decorator.func if isinstance(node.decorator, cst.Call) else node.decorator
    return expression.value if isinstance(expression, cst.Name) else ""
