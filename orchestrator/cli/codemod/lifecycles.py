"""Find steps that ask for a model by a class that is too tight for where their workflow has brought the subscription."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import libcst as cst
from libcst import matchers as m

from orchestrator.cli.codemod.source import Project, Source

_UNKNOWN: Final = ""
_ORDER: Final = {"initial": 0, _UNKNOWN: 1, "provisioning": 1, "migrating": 1, "active": 2}
_FIRST: Final = {"create_workflow": "initial", "modify_workflow": "active", "terminate_workflow": _UNKNOWN}

Place = tuple[Source, cst.CSTNode, str]


def tight_parameters(sources: Sequence[Source]) -> Iterator[Place]:
    """Find parameters of steps that name a class for lifecycles in which the subscription is not yet, or not any more."""
    project = Project(sources)
    found = {id(source): _Definitions(source) for source in sources}
    for definitions in found.values():
        definitions.source.tree.visit(definitions)
    reported = set()
    for definitions in found.values():
        for workflow in definitions.workflows:
            for source, parameter, text in _walk(workflow, definitions, project, found):
                if parameter not in reported:
                    reported.add(parameter)
                    yield source, parameter, text


def _walk(
    workflow: cst.FunctionDef, definitions: _Definitions, project: Project, found: Mapping[int, _Definitions]
) -> Iterator[Place]:
    kind, name = _decorator(workflow), workflow.name.value
    status = _FIRST[kind]
    for part in _steps(workflow):
        if (moved := _set_status(part)) is not None:
            status = moved
            continue
        step, home = _look_up(part, definitions, project, found)
        if step is None or home is None:
            continue
        where = f"in '{name}' the subscription is {status}" if status else f"'{name}' starts in any lifecycle"
        for parameter in step.params.params:
            if parameter.name.value != "subscription":
                continue  # another one, not that of the workflow
            annotation = parameter.annotation.annotation if parameter.annotation else None
            lifecycles = _lifecycles(annotation, home, project, found) if annotation is not None else None
            if lifecycles and status in _ORDER and min(map(_rank, lifecycles)) > _rank(status):
                loosest = f"{' or '.join(sorted(lifecycles))}: name the loosest class that has what the step needs"
                text = f"{where}, and the step '{step.name.value}' asks for a model of the lifecycle {loosest}"
                yield home.source, parameter, text
        status = _moved_by(step) or status


def _rank(status: str) -> int:
    """Return how late a lifecycle is: a class for a later one has what those for earlier ones have, and more."""
    return _ORDER.get(status, 0)


class _Definitions(cst.CSTVisitor):
    """What a file defines: steps, workflows, and the lifecycles of model classes."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.functions: dict[str, cst.FunctionDef] = {}
        self.workflows: list[cst.FunctionDef] = []
        self.lifecycles: dict[str, frozenset[str]] = {}

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:  # noqa: N802 - libcst's name
        self.functions[node.name.value] = node
        if _decorator(node) in _FIRST:
            self.workflows.append(node)
        return False

    def visit_ClassDef(self, node: cst.ClassDef) -> bool:  # noqa: N802 - libcst's name
        for argument in node.keywords:
            if argument.keyword is not None and argument.keyword.value == "lifecycle":
                members = m.findall(argument.value, m.Attribute(value=m.Name("SubscriptionLifecycle")))
                names = {one.attr.value.lower() for one in members if isinstance(one, cst.Attribute)}
                self.lifecycles[node.name.value] = frozenset(names)
        return False


def _look_up(
    name: cst.BaseExpression, definitions: _Definitions, project: Project, found: Mapping[int, _Definitions]
) -> tuple[cst.FunctionDef | None, _Definitions | None]:
    """Find the step that a name stands for, and the file in which it is."""
    written = definitions.source.stands_for(name)
    module, _, last = written.rpartition(".")
    if not module:
        return definitions.functions.get(last), definitions
    source = project.find(module, definitions.source)
    home = found[id(source)] if source else None
    return (home.functions.get(last) if home else None), home


def _lifecycles(
    annotation: cst.BaseExpression, home: _Definitions, project: Project, found: Mapping[int, _Definitions]
) -> frozenset[str] | None:
    """Return the lifecycles of the model class that an annotation names; ``None`` for others, and for base classes."""
    module, _, last = home.source.stands_for(annotation).rpartition(".")
    if not module:
        return home.lifecycles.get(last)
    source = project.find(module, home.source)
    return found[id(source)].lifecycles.get(last) if source else None


def _steps(workflow: cst.FunctionDef) -> list[cst.BaseExpression]:
    """Return what stands between the ``>>`` of a workflow, in order."""
    returned = m.findall(workflow.body, m.Return())
    parts: list[cst.BaseExpression] = []

    def walk(node: cst.BaseExpression) -> None:
        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.RightShift):
            walk(node.left)
            walk(node.right)
        else:
            parts.append(node)

    for one in returned:
        if isinstance(one, cst.Return) and one.value is not None:
            walk(one.value)
    return parts


def _set_status(part: cst.BaseExpression) -> str | None:
    """Return the status that ``set_status(…)`` sets; ``None`` for another step."""
    if not isinstance(part, cst.Call) or not m.matches(part.func, m.Name("set_status")) or not part.args:
        return None
    value = part.args[0].value
    return value.attr.value.lower() if isinstance(value, cst.Attribute) else _UNKNOWN


def _moved_by(step: cst.FunctionDef) -> str | None:
    """Return the status to which a step moves its subscription by itself."""
    for call in m.findall(step.body, m.Call(func=m.Attribute(attr=m.Name("from_other_lifecycle")))):
        if isinstance(call, cst.Call) and len(call.args) > 1 and isinstance(call.args[1].value, cst.Attribute):
            return call.args[1].value.attr.value.lower()
    return None


def _decorator(node: cst.FunctionDef) -> str:
    for one in node.decorators:
        if isinstance(one.decorator, cst.Call) and isinstance(one.decorator.func, cst.Name):
            return one.decorator.func.value
    return ""
