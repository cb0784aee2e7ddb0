"""Bound what one request may ask for, before anything is read: how deep, and how many values at most.

The cost of a request is the number of values that its answer could have if every list were as long as the request allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)
from strawberry.extensions import SchemaExtension

from orchestrator.api.graphql.arguments import DEFAULT_ROWS
from orchestrator.db.lists.request import MAX_ROWS

MAX_TOKENS: Final = 1_000
"""Words and signs of a document; the largest of the field's user interface has 150. Some checks grow by their square."""

MAX_DEPTH: Final = 12
"""Levels of fields."""

MAX_COST: Final = 250_000
"""Values of an answer; the field's user interface asks for 120,000 when it exports a list of processes."""

_LISTS: Final = frozenset(
    {
        "processes",
        "subscriptions",
        "products",
        "productBlocks",
        "resourceTypes",
        "workflows",
        "scheduledTasks",
        "customers",
        "inUseBySubscriptions",
    }
)
"""Fields that are pages; one with no number of rows has ten."""

_WEIGHTS: Final[Mapping[str, int]] = {
    # The log of a process, the tree of a subscription: as many values as those of a usual one.
    "steps": 20,
    "productBlockInstances": 20,
    # Each calls functions of authors.
    "form": 300,
    "userPermissions": 300,
    "isAllowed": 50,
}


class Limiter(SchemaExtension):
    """Refuses a request that asks for too much."""

    def on_operation(self) -> Iterator[None]:
        """Bound the length of the document."""
        self.execution_context.parse_options["max_tokens"] = MAX_TOKENS
        yield

    def on_validate(self) -> Iterator[None]:
        """Check depth and cost of a document that is valid otherwise."""
        yield
        context = self.execution_context
        if context.pre_execution_errors or context.graphql_document is None:
            return
        problem = find_excess(context.graphql_document.definitions, context.variables or {}, context.operation_name)
        if problem is not None:
            raise GraphQLError(problem, extensions={"error_type": "query_too_large"})


def find_excess(definitions: Any, variables: Mapping[str, Any], operation: str | None = None) -> str | None:
    """Return in which way a valid document asks for too much; ``None`` when it does not.

    Args:
        operation: the one of several that is carried out.
    """
    fragments = {one.name.value: one for one in definitions if isinstance(one, FragmentDefinitionNode)}
    for one in definitions:
        if not isinstance(one, OperationDefinitionNode):
            continue
        if operation is not None and (one.name is None or one.name.value != operation):
            continue
        defaults = {
            each.variable.name.value: int(each.default_value.value)
            for each in one.variable_definitions or ()
            if isinstance(each.default_value, IntValueNode)
        }
        meter = _Meter(fragments, {**defaults, **variables})
        cost = meter.measure(one.selection_set, 1)
        if meter.depth > MAX_DEPTH:
            return f"the query is {meter.depth} levels deep; {MAX_DEPTH} are allowed: ask for less at once"
        if cost > MAX_COST:
            return (
                f"the query could have {cost} values, {MAX_COST} are allowed: ask for fewer rows with 'first', or for fewer"
                " fields of rows in rows"
            )
    return None


class _Meter:
    """Measures one operation.

    Args:
        fragments: those that it may name; none of them names itself, which validation has made sure of.
    """

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode], variables: Mapping[str, Any]) -> None:
        self._fragments = fragments
        self._variables = variables
        self._measured: dict[tuple[str, int], int] = {}
        self.depth = 0

    def measure(self, selected: SelectionSetNode, level: int) -> int:
        """Return the cost of fields at a level."""
        self.depth = max(self.depth, level)
        return sum(self._measure(one, level) for one in selected.selections)

    def _measure(self, node: Any, level: int) -> int:
        if isinstance(node, FragmentSpreadNode):
            return self._measure_fragment(node.name.value, level)
        if isinstance(node, InlineFragmentNode):
            return self.measure(node.selection_set, level)
        name = node.name.value
        if name.startswith("__") and level == 1:
            return 1  # what the schema is does not depend on the rows
        own = _WEIGHTS.get(name, 1)
        inner = 0 if node.selection_set is None else self.measure(node.selection_set, level + 1)
        rows = self._count_rows(node) if name in _LISTS else own
        return own + rows * inner

    def _measure_fragment(self, name: str, level: int) -> int:
        key = (name, level)
        if key not in self._measured:
            self._measured[key] = self.measure(self._fragments[name].selection_set, level)
        return self._measured[key]

    def _count_rows(self, node: FieldNode) -> int:
        if not any(one.name.value == "first" for one in node.arguments or ()):
            return DEFAULT_ROWS
        (value,) = (one.value for one in node.arguments or () if one.name.value == "first")
        if isinstance(value, VariableNode):
            found = self._variables.get(value.name.value)
            written = DEFAULT_ROWS if found is None else found
        else:
            written = int(value.value) if isinstance(value, IntValueNode) else DEFAULT_ROWS
        return min(max(written, 1), MAX_ROWS) if isinstance(written, int) else MAX_ROWS
