"""Register the workflows of the code. Modules are imported on first use, so one broken module does not stop the others.

A workflow can be started when it is known here *and* has a row in the table ``workflows``; both are checked.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.diagnostics import describe, locate
from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError, NotFoundError
from orchestrator.text import sanitise
from orchestrator.workflow import StepKind, Workflow

MAX_DEFECT = 500
"""Characters of the text about a broken workflow that a consumer reports: one module may hold hundreds of workflows."""

_instances: dict[str, LazyWorkflowInstance] = {}


class LazyWorkflowInstance:
    """Names the module in which a workflow lives, without importing it.

    Args:
        package: the module that holds the workflow, for example ``"network.workflows.create_node"``.
        function: the name of the decorated function in it, which is the workflow's name.
        products: the names of the products that have it. ``orchestrator db migrate-workflows`` writes the migration that links
            them in the database, and unlinks others. Without any, migrations alone say which products have it.

    Raises:
        DefinitionError: another module has registered the same name, or ``products`` are not names.
    """

    def __init__(self, package: str, function: str, *, products: Iterable[str] = ()) -> None:
        self.package = package
        self.function = function
        self.products = _names_of_products(function, products)
        self._plan: Plan | None = None
        self._defect: str | None = None
        known = _instances.get(function)
        if known is not None and known.package != package:
            raise DefinitionError(
                f"the workflow {function!r} is registered twice: in {known.package!r} and in {package!r}"
            )
        _instances[function] = self

    def __repr__(self) -> str:
        return f"LazyWorkflowInstance({self.package!r}, {self.function!r})"

    def plan(self) -> Plan:
        """Import the module if need be and return the workflow as a plan.

        Raises:
            DefinitionError: the module cannot be imported, lacks the name, or defines something else under it.
        """
        if self._plan is None:
            try:
                if self._defect is not None:
                    raise DefinitionError(self._defect)
                self._plan = Plan.of(self._load())
            except DefinitionError as error:
                # What the program has reported about itself holds until it starts anew, and an import is not tried for each step.
                self._defect = str(error)
                error.lacks_code = True
                raise
        return self._plan

    def _load(self) -> Workflow:
        try:
            module = importlib.import_module(self.package)
        except DefinitionError as error:
            # The error names the defect in the module, which may be in another workflow than this one.
            raise DefinitionError(f"the module {self.package!r} cannot be used: {error}{locate(error)}") from error
        except (Exception, SystemExit) as error:
            # Whatever a user's module raises while it is imported is a defect of that module: the error names the module.
            raise DefinitionError(f"the module {self.package!r} cannot be imported: {describe(error)}") from error
        found = getattr(module, self.function, None)
        if not isinstance(found, Workflow):
            raise DefinitionError(
                f"the module {self.package!r} has no workflow {self.function!r}: "
                + ("there is no such name" if found is None else f"it is {found!r}; decorate it with @workflow(...)")
            )
        if found.name != self.function:
            raise DefinitionError(
                f"{self.package}.{self.function} is the workflow {found.name!r}: register it under its own name"
            )
        return found


class _InstanceAtHand(LazyWorkflowInstance):
    """A workflow that need not be imported."""

    def __init__(self, workflow: Workflow) -> None:
        super().__init__("(at hand)", workflow.name)
        self._workflow = workflow

    def _load(self) -> Workflow:
        return self._workflow


@contextlib.contextmanager
def registered(workflow: Workflow) -> Iterator[None]:
    """Register a workflow that is at hand while the block runs, unless the code has registered it.

    Raises:
        DefinitionError: it is wrong as written, or another one is registered under its name.
    """
    known = _instances.get(workflow.name)
    if known is not None:
        if known.plan().workflow is not workflow:
            raise DefinitionError(
                f"another workflow is registered as {workflow.name!r}, by the module {known.package!r}: rename this one"
            )
        yield
        return
    instance = _InstanceAtHand(workflow)
    try:
        instance.plan()
        yield
    finally:
        del _instances[workflow.name]


def known_workflows() -> Iterator[str]:
    """Return the names of all workflows that the code has registered, sorted."""
    return iter(sorted(_instances))


def plan_of(workflow: str) -> Plan:
    """Return the plan of a workflow by name.

    Raises:
        NotFoundError: the code has registered no workflow of that name.
        DefinitionError: it has, but the module is broken.
    """
    return _instance(workflow).plan()


def queue_of(workflow: str, step: str | None) -> str | None:
    """Return the step queue of a step; ``None`` when this program's code does not have the step, or is broken."""
    try:
        plan = plan_of(workflow)
    except (NotFoundError, DefinitionError):
        return None
    position = plan.positions.get(step or "")
    return None if position is None else plan.leaves[position].queue


def list_secret_keys() -> dict[str, tuple[str, ...]]:
    """Return the secret keys of each workflow that has some; a workflow whose module is broken is left out."""
    found: dict[str, tuple[str, ...]] = {}
    for workflow in _instances:
        with contextlib.suppress(NotFoundError, DefinitionError):
            keys = plan_of(workflow).workflow.secret_keys
            if keys:
                found[workflow] = keys
    return found


def timeout_of(workflow: str, step: str | None) -> float | None:
    """Return the seconds that a step sets for itself; ``None`` when it sets none, or this program's code does not have it."""
    try:
        plan = plan_of(workflow)
    except (NotFoundError, DefinitionError):
        return None
    position = plan.positions.get(step or "")
    timeout = None if position is None else plan.leaves[position].step.timeout
    return None if timeout is None else timeout.total_seconds()


def step_queues() -> set[str]:
    """Return all step queues that the project's workflows use, except broken ones, which run nowhere."""
    return set().union(*step_queues_by_workflow().values())


def step_queues_by_workflow() -> dict[str, set[str]]:
    """Return the step queues that each of the project's workflows uses, except broken ones.

    Workflows that ship with the engine use the standard queues; their modules need not be imported for that.
    """
    found: dict[str, set[str]] = {}
    for workflow in known_workflows():
        if ships_with_engine(workflow):
            continue
        with contextlib.suppress(DefinitionError):
            leaves = plan_of(workflow).leaves
            found[workflow] = {leaf.queue for leaf in leaves if leaf.step.kind in (StepKind.RUN, StepKind.ACTION)}
    return found


@dataclass(frozen=True, slots=True)
class Abilities:
    """Which workflows a program can run, and why it cannot run the others that its code registers.

    Args:
        knows: workflow → the fingerprint of its plan.
        broken: workflow → what is wrong with its module.
    """

    knows: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)


def find_abilities() -> Abilities:
    """Import the modules of all registered workflows, and return which can be used."""
    knows: dict[str, str] = {}
    broken: dict[str, str] = {}
    for workflow in known_workflows():
        try:
            knows[workflow] = plan_of(workflow).fingerprint
        except DefinitionError as error:
            broken[workflow] = sanitise(str(error))[:MAX_DEFECT]
    return Abilities(knows, broken)


def products_of(workflow: str) -> tuple[str, ...]:
    """Return the products that a workflow's registration in the code names; none when it leaves them to migrations.

    Raises:
        NotFoundError: the code has registered no workflow of that name.
    """
    return _instance(workflow).products


def ships_with_engine(workflow: str) -> bool:
    """Return whether a workflow ships with the engine, whose own migrations register it.

    Raises:
        NotFoundError: the code has registered no workflow of that name.
    """
    return _instance(workflow).package.partition(".")[0] == __name__.partition(".")[0]


def import_modules(modules: Iterable[str]) -> None:
    """Import the user's modules, which register their workflows.

    Raises:
        DefinitionError: a module cannot be imported; the text names it.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except DefinitionError as error:
            raise DefinitionError(f"{error}{locate(error)}") from error
        except (Exception, SystemExit) as error:
            # As above: whatever it raised, the defect is in the user's module.
            raise DefinitionError(
                f"the module {module!r} of ORCHESTRATOR_WORKFLOWS cannot be imported: {describe(error)}"
            ) from error


def import_workflows() -> None:
    """Import the modules of all workflows that are registered. One that is broken says so when its plan is asked for."""
    for instance in list(_instances.values()):
        with contextlib.suppress(DefinitionError):
            instance.plan()


def _instance(workflow: str) -> LazyWorkflowInstance:
    instance = _instances.get(workflow)
    if instance is None:
        error = NotFoundError(
            f"the workflow {workflow!r} is not known to this program: no LazyWorkflowInstance of that name in the"
            f" modules of ORCHESTRATOR_WORKFLOWS (known: {', '.join(known_workflows()) or 'none'})",
        )
        error.lacks_code = True
        raise error
    return instance


def _names_of_products(workflow: str, products: Iterable[str]) -> tuple[str, ...]:
    names = () if isinstance(products, str) else tuple(products)
    if isinstance(products, str) or not all(isinstance(name, str) and name.strip() for name in names):
        raise DefinitionError(
            f'the products of the workflow {workflow!r} are a list of names, such as products=["Node P"], not {products!r}'
        )
    return tuple(dict.fromkeys(names))
