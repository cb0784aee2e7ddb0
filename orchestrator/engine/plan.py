"""Flatten a workflow into a plan: for each position a leaf step, with the conditions that are evaluated on arrival."""

from __future__ import annotations

import inspect
from copy import deepcopy
from dataclasses import dataclass

from orchestrator.authorization import Action, AuthCallback
from orchestrator.engine.arguments import Arguments
from orchestrator.engine.fingerprint import compute_fingerprint, identify
from orchestrator.engine.process import Process
from orchestrator.errors import WorkflowChangedError
from orchestrator.types import JSON, ProcessStatus, State
from orchestrator.workflow import Block, BlockKind, Predicate, Step, StepKind, StepList, Workflow

Outline = tuple[dict[str, JSON], ...]
"""The steps of a plan by everything that decides what is next, as it is hashed, stored and compared."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition evaluated on arrival at a position; when it is false all steps before ``end`` are skipped."""

    predicate: Predicate
    end: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """One step of a plan.

    Args:
        guards: evaluated on arrival, outermost first.
        restart: where a retry begins: this position, or that of the action for the parts of a callback step.
        group: the name of the step group it belongs to.
        resume_auth, retry_auth: who may fill it in, and who may retry it: its own callback, else that of the nearest block.
    """

    position: int
    step: Step
    queue: str
    arguments: Arguments
    guards: tuple[Guard, ...] = ()
    restart: int = 0
    group: str | None = None
    resume_auth: AuthCallback | None = None
    retry_auth: AuthCallback | None = None

    def find_refusal(self, state: State) -> int | None:
        """Evaluate the conditions; return the end of the first guard that is false, or ``None`` when all hold."""
        return next((guard.end for guard in self.guards if not _ask(guard.predicate, state)), None)


@dataclass(frozen=True, slots=True)
class _Around:
    """What a step inherits from the blocks around it."""

    restart: int | None = None
    group: str | None = None
    resume_auth: AuthCallback | None = None
    retry_auth: AuthCallback | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A flattened workflow. Positions count from 0.

    Args:
        outline: what :attr:`fingerprint` is computed from.
        fingerprint: equal in all programs that decide in the same way what is next, see :func:`outline_of`.
    """

    workflow: Workflow
    leaves: tuple[Leaf, ...]
    form: Arguments
    positions: dict[str, int]
    outline: Outline
    fingerprint: str

    def __len__(self) -> int:
        return len(self.leaves)

    @classmethod
    def of(cls, workflow: Workflow) -> Plan:
        """Flatten a workflow.

        Raises:
            DefinitionError: a step's parameters cannot be filled.
        """
        leaves = tuple(_lay_out(workflow, workflow.steps, 0, (), _Around()))
        form = Arguments.of(workflow.initial_input_form, f"the initial form of {workflow.name!r}")
        outline = outline_of(leaves)
        positions = {leaf.step.name: leaf.position for leaf in leaves}
        return cls(workflow, leaves, form, positions, outline, compute_fingerprint(outline))

    def locate(self, process: Process) -> Leaf:
        """Return the leaf at which a process stands.

        The step's name decides: when the code has moved the step to another position, that position is the place.

        Raises:
            WorkflowChangedError: no step has that name any more. The engine never runs or skips another step instead.
        """
        if process.step is not None:
            if process.position < len(self.leaves) and self.leaves[process.position].step.name == process.step:
                return self.leaves[process.position]
            position = self.positions.get(process.step)
            if position is not None:
                return self.leaves[position]
        again = "resume" if process.status is ProcessStatus.SUSPENDED else "retry"
        raise WorkflowChangedError(
            f"the workflow {self.workflow.name!r} has changed while this process was under way: it stands at step"
            f" {process.step!r} (position {process.position}), which the code no longer has. Bring the step back under this"
            f" name and {again}, or abort the process."
        )

    def authorizer(self, action: Action, leaf: Leaf | None = None) -> AuthCallback | None:
        """Return who decides about an action: the step's callback, else the workflow's for it, else the workflow's for all."""
        whole = self.workflow
        match action:
            case Action.START:
                return whole.authorize_callback
            case Action.RESUME:
                own = None if leaf is None else leaf.resume_auth
                return own or whole.resume_auth_callback or whole.authorize_callback
            case Action.RETRY | Action.SKIP | Action.PATCH | Action.REWIND:
                own = None if leaf is None else leaf.retry_auth
                return own or whole.retry_auth_callback or whole.authorize_callback

    def skipped_by(self, leaf: Leaf) -> int:
        """Return the position after ``leaf`` and after whatever cannot run without it (the rest of its callback step)."""
        end = leaf.position + 1
        while end < len(self.leaves) and self.leaves[end].restart < end and self.leaves[end].restart <= leaf.position:
            end += 1
        return end


def outline_of(leaves: tuple[Leaf, ...]) -> Outline:
    """Return everything that decides what is next: two programs with equal outlines may work on one process by turns.

    The bodies of steps, forms and named conditions do not count, nor who may do something, titles and descriptions: changing
    them changes what happens in a step, not which step comes next, where and when.
    """
    return tuple(_describe(leaf, leaves) for leaf in leaves)


def _describe(leaf: Leaf, leaves: tuple[Leaf, ...]) -> dict[str, JSON]:
    step = leaf.step
    described: dict[str, JSON] = {"name": step.name, "kind": step.kind.value}
    if step.kind in (StepKind.RUN, StepKind.ACTION):
        described["queue"] = leaf.queue
    if leaf.group is not None:
        described["group"] = leaf.group
    if leaf.restart != leaf.position:
        described["retry_from"] = leaves[leaf.restart].step.name
    if leaf.guards:
        described["conditions"] = [
            {"condition": identify(guard.predicate), "steps": guard.end - leaf.position} for guard in leaf.guards
        ]
    if step.retry is not None:
        described["retry"] = {"wait": identify(step.retry.wait), "limit": step.retry.limit}
    if step.timeout is not None:
        described["timeout"] = identify(step.timeout)
    if step.callback is not None:
        terms = step.callback
        described["callback"] = {
            "result_key": terms.result_key,
            "route_key": terms.route_key,
            "timeout": identify(terms.timeout),
        }
    return described


def _lay_out(workflow: Workflow, steps: StepList, start: int, outer: tuple[Guard, ...], around: _Around) -> list[Leaf]:
    """Flatten ``steps`` from position ``start``; ``outer`` are the guards of enclosing blocks, evaluated at their first leaf."""
    found: list[Leaf] = []
    for item in steps:
        position = start + len(found)
        pending = outer if not found else ()
        resume_auth = item.resume_auth_callback or around.resume_auth
        retry_auth = item.retry_auth_callback or around.retry_auth
        if isinstance(item, Block):
            end = position + _size(item.steps)
            guards = pending + tuple(Guard(predicate, end) for predicate in item.conditions)
            is_callback = item.kind is BlockKind.CALLBACK
            inside = _Around(
                position if is_callback else around.restart,
                around.group if is_callback else item.name,
                resume_auth,
                retry_auth,
            )
            found.extend(_lay_out(workflow, item.steps, position, guards, inside))
            continue
        guards = pending + tuple(Guard(predicate, position + 1) for predicate in item.conditions)
        found.append(
            Leaf(
                position,
                item,
                item.queue or workflow.default_queue,
                Arguments.of(item.function or item.form, f"the step {item.name!r} of {workflow.name!r}", item.callback),
                guards,
                position if around.restart is None else around.restart,
                around.group,
                resume_auth,
                retry_auth,
            )
        )
    return found


def _size(steps: StepList) -> int:
    return sum(_size(item.steps) if isinstance(item, Block) else 1 for item in steps)


def _ask(predicate: Predicate, state: State) -> bool:
    # A copy, because a predicate that changed the state in place would change it without a log entry.
    return bool(predicate(deepcopy(state)) if _takes_state(predicate) else predicate())  # type: ignore[call-arg]


def _takes_state(predicate: Predicate) -> bool:
    try:
        return bool(inspect.signature(predicate).parameters)
    except ValueError:
        return True  # a builtin that has no signature, for example operator.itemgetter("wanted")
