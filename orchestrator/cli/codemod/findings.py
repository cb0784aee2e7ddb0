"""Find what a person has to look at: what changes silently, and what cannot be changed by a rule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import libcst as cst
from libcst import matchers as m

from orchestrator.cli.codemod.imports import unresolved_imports
from orchestrator.cli.codemod.lifecycles import tight_parameters
from orchestrator.cli.codemod.names import advise, is_in_module, lacks_column, resolve
from orchestrator.cli.codemod.session import MODEL_MAKERS, QUERIED, analyse, given_session, parameter_names, remaining
from orchestrator.cli.codemod.source import Source

STEPS: Final = frozenset({"step", "retrystep"})
BLOCKING: Final = re.compile(
    r"(requests|urllib3?|subprocess|paramiko|netmiko|ncclient|pynetbox|napalm|httpx)\."
    r"(.*\.)?(get|post|put|patch|delete|head|request|urlopen|run|call|check_call|check_output|connect|ConnectHandler|api)"
    r"|time\.sleep|os\.system"
)
CREATES: Final = re.compile(r"(post|create|add|allocate|reserve|order|provision|claim|book|insert)(_.*)?")
NOT_ELSEWHERE: Final = frozenset({"add", "add_all"})
"""What a session and a set have under the same name."""

SECRETS: Final = re.compile(
    r"(^|_)(password|passwd|secret|api_key|apikey|private_key|token|callback_route|callback_token)$"
)

OF_SUBSCRIPTIONS: Final = frozenset({"customer_id", "description", "product", "status", "subscription_id"})

_TOKEN: Final = m.Name("callback_route") | m.Name("callback_token")
_SUBSCRIPTION_OF: Final = m.Attribute(value=~m.Name("self"), attr=m.Name("subscription"))
_MADE: Final = m.Assign(value=m.Call(func=m.Attribute(attr=m.MatchIfTrue(lambda one: one.value in MODEL_MAKERS))))


@dataclass(frozen=True, order=True)
class Finding:
    """One place for a person.

    Args:
        line: in the file as it is after the port.
        rule: the kind, by which ``docs/port.md`` explains it.
        text: what it is and what to do.
    """

    line: int
    rule: str
    text: str


def review(sources: Iterable[Source]) -> Mapping[Path, list[Finding]]:
    """List what is left for a person, by file and line."""
    found: dict[Path, list[Finding]] = {}
    sources = list(sources)
    for analysis in analyse(sources):
        visitor = _Review(analysis.source)
        analysis.source.tree.visit(visitor)
        for node, text in remaining(analysis):
            visitor.report(node, "session", text)
        for node, name in unresolved_imports(analysis.source):
            visitor.report(node, "import", f"'{name}' is not here: {advise(name)}")
        found[analysis.source.path] = visitor.findings
    for source, node, text in tight_parameters(sources):
        found[source.path].append(Finding(source.line(node), "lifecycle", text))
    return {path: sorted(set(findings)) for path, findings in found.items()}


class _Review(cst.CSTVisitor):
    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._functions: list[cst.FunctionDef] = []
        self._called = {one.func for one in m.findall(source.tree, m.Call()) if isinstance(one, cst.Call)}
        self.findings: list[Finding] = []

    def report(self, node: cst.CSTNode, rule: str, text: str) -> None:
        self.findings.append(Finding(self._source.line(node), rule, text))

    @property
    def _step(self) -> cst.FunctionDef | None:
        """The step in which the visitor is."""
        return next((one for one in self._functions if is_step(one)), None)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:  # noqa: N802 - libcst's name
        self._functions.append(node)
        if is_step(node) and "idempotency_key" not in parameter_names(node):
            creates = next(self._creating(node), None)
            if creates is not None:
                self.report(
                    node,
                    "again",
                    f"the step '{node.name.value}' creates something ({creates}) and runs again when it is lost: ask for"
                    " 'idempotency_key' and send it, or look whether it is there before you create it",
                )

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:  # noqa: N802 - libcst's name
        del original_node
        self._functions.pop()

    def visit_Call(self, node: cst.Call) -> None:  # noqa: N802 - libcst's name
        name = self._source.stands_for(node.func)
        last = name.rpartition(".")[2]
        self._transactions(node, name, last)
        if self._functions and self._functions[-1].asynchronous and BLOCKING.fullmatch(name):
            self.report(
                node,
                "blocking",
                f"'{name}' blocks the event loop of the whole program in an async function: write 'def', or await"
                " 'asyncio.to_thread(…)'",
            )
        if last in {"delay", "apply_async", "send_task"} and "." in name:
            self.report(
                node, "queue", f"'{name}' hands work to a task queue: make it a step, or start a workflow for it"
            )
        if last == "save" and "." in name and not given_session(node.args) and not node.args:
            self.report(node, "save", f"if '{name.rpartition('.')[0]}' is a subscription: '{name}(session)'")

    def _transactions(self, node: cst.Call, name: str, last: str) -> None:
        owner = name.rpartition(".")[0]
        if last in {"commit", "rollback"} and (owner == "session" or owner.endswith(".session")):
            self.report(
                node,
                "commit",
                f"'{name}' is refused: a step is one transaction. Drop it; where there are two commits in a step, make two steps",
            )
        if last in {"transactional", "database_scope"}:
            self.report(
                node,
                "commit",
                f"'{last}' has no counterpart: a step is one transaction, begun and committed by the engine",
            )

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:  # noqa: N802 - libcst's name
        del node
        return False  # imports are reported by their names

    def visit_Import(self, node: cst.Import) -> bool:  # noqa: N802 - libcst's name
        del node
        return False

    def visit_Attribute(self, node: cst.Attribute) -> None:  # noqa: N802 - libcst's name
        name = self._source.stands_for(node)
        if is_in_module(name) and resolve(name) is None:
            self.report(node, "import", f"'{name}' is not here: {advise(name)}")
        table = self._source.stands_for(node.value)
        if node.attr.value == "query" and QUERIED.search(table) and node not in self._called:
            self.report(node, "query", "a table has no 'query': 'session.query(…)', or 'session.scalars(select(…))'")
        elif lacks_column(table, node.attr.value):
            shown = f"{table.rpartition('.')[2]}.{node.attr.value}"
            self.report(
                node, "query", f"there is no '{shown}': tables have columns, no relations; join them by their ids"
            )
        if node.attr.value in OF_SUBSCRIPTIONS and m.matches(node.value, _SUBSCRIPTION_OF):
            self.report(
                node,
                "block",
                "a block, or a reference to one, has no 'subscription': hand the subscription over, or load it by"
                " 'owner_subscription_id'",
            )
        if node.attr.value in {"in_use_by", "depends_on"} and node not in self._called:
            self.report(
                node,
                "in_use_by",
                f"'{node.attr.value}' of a block or subscription is a method: '.{node.attr.value}(session)'; it returns"
                " references, with ids, product and status",
            )

    def visit_Return(self, node: cst.Return) -> None:  # noqa: N802 - libcst's name
        if self._step is None or not isinstance(node.value, cst.Dict):
            return
        for element in node.value.elements:
            if not isinstance(element, cst.DictElement) or not isinstance(element.key, cst.SimpleString):
                continue
            key = str(element.key.evaluated_value)
            if SECRETS.search(key) or m.matches(element.value, _TOKEN):
                self.report(
                    element,
                    "secret",
                    f"'{key}' goes into the state, which is stored and shown: keep secrets out of it. A callback's token does not"
                    " enter the state: the action step asks for 'callback_route' by name",
                )
            copied = element.value
            if (
                isinstance(copied, cst.Call)
                and m.matches(copied.func, m.Attribute(attr=m.Name("dict") | m.Name("model_dump")))
                and (key == "subscription" or _first(copied.func) in _models(self._step))
            ):
                self.report(
                    element,
                    "copy",
                    f"'{key}' is a copy of values, and nothing is saved of it: if it is a subscription, return the model itself",
                )

    def _creating(self, step: cst.FunctionDef) -> Iterator[str]:
        for call in m.findall(step.body, m.Call()):
            assert isinstance(call, cst.Call)  # noqa: S101 - that is what was asked for
            name = self._source.stands_for(call.func)
            last = name.rpartition(".")[2]
            if CREATES.fullmatch(last) and last not in NOT_ELSEWHERE:
                yield name


def _first(node: cst.BaseExpression) -> str:
    """Return the name with which an expression such as ``port.node.dict`` begins."""
    while isinstance(node, cst.Attribute):
        node = node.value
    return node.value if isinstance(node, cst.Name) else ""


def _models(step: cst.FunctionDef) -> set[str]:
    """Return the names that may be models in a step: its parameters, and what it has made or loaded."""
    made = [one for one in m.findall(step.body, _MADE) if isinstance(one, cst.Assign)]
    return {*parameter_names(step), *(_first(target.target) for one in made for target in one.targets)}


def is_step(node: cst.FunctionDef) -> bool:
    """Return whether a function is a step."""
    return any(
        isinstance(one.decorator, cst.Call)
        and isinstance(one.decorator.func, cst.Name)
        and one.decorator.func.value in STEPS
        for one in node.decorators
    )
