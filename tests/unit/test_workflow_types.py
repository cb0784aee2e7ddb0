"""B12, B17–B20: the steps that each workflow type puts around the author's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError
from orchestrator.forms import ComposedForm, FormPage
from orchestrator.targets import Target
from orchestrator.types import SubscriptionLifecycle
from orchestrator.workflow import StepList, begin, conditional, done, init, leaves, step, step_group, workflow
from orchestrator.workflows.steps import (
    resync,
    set_status,
    store_process_subscription,
    unsync,
    unsync_unchecked,
)
from orchestrator.workflows.utils import (
    create_workflow,
    ensure_provisioning_status,
    modify_workflow,
    reconcile_workflow,
    task,
    terminate_workflow,
    validate_workflow,
)

LINK, LOCK, UNLOCK = "Link process to subscription", "Lock subscription", "Unlock subscription"
UNCHECKED = "Lock subscription without checking"


@step("Own")
def own() -> None: ...


@step("More")
def more() -> None: ...


def names(made: Any) -> list[str]:
    return [leaf.name for leaf in leaves(made.steps)]


def node() -> StepList:
    """Works on a node."""
    return begin >> own


ORDERS: list[tuple[Callable[..., Any], Target, bool, list[str]]] = [
    (create_workflow, Target.CREATE, False, ["Start", "Own", "Set subscription to 'active'", UNLOCK, "Done"]),
    (modify_workflow, Target.MODIFY, False, ["Start", LINK, LOCK, "Own", UNLOCK, "Done"]),
    (
        terminate_workflow,
        Target.TERMINATE,
        False,
        ["Start", LINK, LOCK, "Own", "Set subscription to 'terminated'", UNLOCK, "Done"],
    ),
    (validate_workflow, Target.VALIDATE, True, ["Start", LINK, UNCHECKED, "Own", UNLOCK, "Done"]),
    (reconcile_workflow, Target.RECONCILE, False, ["Start", LINK, UNCHECKED, "Own", UNLOCK, "Done"]),
    (task, Target.SYSTEM, True, ["Start", "Own", "Done"]),
]


@pytest.mark.parametrize(
    ("kind", "target", "is_task", "steps"), ORDERS, ids=lambda value: getattr(value, "__name__", "")
)
def test_each_type_has_its_steps_in_this_order(
    kind: Callable[..., Any], target: Target, is_task: bool, steps: list[str]
) -> None:
    made = kind("Work on a node")(node)

    assert names(made) == steps
    assert (made.name, made.description, made.target, made.is_task) == ("node", "Work on a node", target, is_task)
    assert made.default_queue == ("tasks" if is_task else "default")
    Plan.of(made)


@pytest.mark.parametrize("kind", [kind for kind, *_ in ORDERS], ids=lambda kind: str(kind.__name__))
def test_the_docstring_describes_a_workflow_that_has_no_description(kind: Callable[..., Any]) -> None:
    assert kind()(node).description == "Works on a node."


@pytest.mark.parametrize("kind", [create_workflow, modify_workflow, terminate_workflow])
def test_additional_steps_run_after_the_authors(kind: Callable[..., Any]) -> None:
    made = names(kind("w", additional_steps=begin >> more)(node))

    assert made.index("More") == made.index("Own") + 1


@pytest.mark.parametrize(
    "status", [SubscriptionLifecycle.PROVISIONING, "provisioning"], ids=["as a member", "as a string"]
)
def test_a_create_workflow_may_end_in_another_lifecycle(status: SubscriptionLifecycle | str) -> None:
    assert "Set subscription to 'provisioning'" in names(create_workflow("w", status=status)(node))


@pytest.mark.parametrize(
    ("kind", "status"), [(create_workflow, SubscriptionLifecycle.ACTIVE), (terminate_workflow, "terminated")]
)
def test_an_author_may_set_the_last_status_before_and_go_on_after_it(kind: Callable[..., Any], status: str) -> None:
    def early() -> StepList:
        return begin >> set_status(status) >> own

    last = f"Set subscription to '{SubscriptionLifecycle(status).value}'"
    assert names(kind("w")(early))[-5:] == [last, "Own", f"{last} at the end", UNLOCK, "Done"]


def test_an_unknown_lifecycle_is_refused_where_it_is_written() -> None:
    with pytest.raises(DefinitionError, match="there is no status 'activ': there are initial, active"):
        set_status("activ")


@pytest.mark.parametrize("kind", [kind for kind, *_ in ORDERS], ids=lambda kind: str(kind.__name__))
@pytest.mark.parametrize(
    "steps", [lambda: own, lambda: step_group("Group", begin >> own), lambda: conditional(lambda: True)(begin >> own)]
)
def test_an_author_may_return_a_step_a_block_or_a_list(kind: Callable[..., Any], steps: Callable[[], Any]) -> None:
    def node() -> Any:
        return steps()

    assert "Own" in names(kind("w")(node))


@pytest.mark.parametrize("kind", [modify_workflow, terminate_workflow, validate_workflow])
def test_the_stock_steps_alone_are_a_workflow(kind: Callable[..., Any]) -> None:
    def nothing() -> StepList:
        return begin

    assert names(kind("w")(nothing))[-1] == "Done"


def test_a_step_with_the_name_of_a_stock_step_is_refused() -> None:
    def clash() -> StepList:
        return begin >> step(LOCK)(lambda: None)

    with pytest.raises(DefinitionError, match="the workflow 'clash' has two steps named 'Lock subscription'"):
        modify_workflow("w")(clash)


@pytest.mark.parametrize("kind", [kind for kind, *_ in ORDERS], ids=lambda kind: str(kind.__name__))
def test_what_is_no_list_of_steps_is_refused(kind: Callable[..., Any]) -> None:
    def wrong() -> Any:
        return lambda: None

    with pytest.raises(DefinitionError, match="only steps and step lists can follow"):
        kind("w")(wrong)


def test_storing_the_process_may_be_written_with_or_without_parentheses() -> None:
    assert store_process_subscription() is store_process_subscription
    assert store_process_subscription(Target.CREATE) is store_process_subscription
    assert names_of(begin >> store_process_subscription >> own) == [LINK, "Own"]
    assert names_of(begin >> conditional(lambda: True)(store_process_subscription())) == [LINK]


def test_the_stock_steps_can_be_used_in_workflows_of_ones_own() -> None:
    steps = begin >> store_process_subscription() >> unsync >> own >> set_status("active") >> resync

    assert names_of(steps) == [LINK, LOCK, "Own", "Set subscription to 'active'", UNLOCK]
    assert unsync_unchecked.name == UNCHECKED


@pytest.mark.parametrize("kind", [create_workflow, modify_workflow, terminate_workflow, validate_workflow])
async def test_the_first_page_is_ours_even_if_the_author_has_no_form(kind: Callable[..., Any]) -> None:
    form = kind("w")(node).initial_input_form

    assert isinstance(await form(None), ComposedForm)


def test_a_task_has_the_authors_form_and_no_page_of_ours() -> None:
    def form() -> Any: ...

    assert task("w")(node).initial_input_form is None
    assert task("w", initial_input_form=form)(node).initial_input_form is form


def names_of(steps: StepList) -> list[str]:
    return [leaf.name for leaf in leaves(steps)]


FORMS = [workflow, create_workflow, modify_workflow, terminate_workflow, task]


@pytest.mark.parametrize("kind", FORMS)
def test_a_page_in_the_place_of_a_form_is_refused_with_what_to_write(kind: Callable[..., Any]) -> None:
    with pytest.raises(DefinitionError, match="write initial_input_form=lambda: FormPage"):
        kind("w", initial_input_form=FormPage)(node)
    with pytest.raises(DefinitionError, match="of the workflow 'node' takes a function, not 5"):
        kind("w", initial_input_form=5)(node)


@pytest.mark.parametrize("kind", [*FORMS, validate_workflow, reconcile_workflow])
def test_a_decorator_without_parentheses_is_refused_with_what_to_write(kind: Callable[..., Any]) -> None:
    with pytest.raises(DefinitionError, match=rf"write @{kind.__name__}\(\.\.\.\) with parentheses"):
        kind(node)


@pytest.mark.parametrize("decorator", [one for one, *_ in ORDERS])
def test_an_author_who_writes_init_and_done_learns_that_they_are_there_already(decorator: Callable[..., Any]) -> None:
    def node() -> StepList:
        return init >> own >> done

    with pytest.raises(DefinitionError, match=r"'node' has 'Start' and 'Done' among its own steps: .* init and done"):
        decorator("Works")(node)


def test_steps_are_put_between_provisioning_and_active() -> None:
    @modify_workflow("Change a node")
    def change() -> StepList:
        return ensure_provisioning_status(own >> more)

    between = ["Set subscription to 'provisioning'", "Own", "More", "Set subscription to 'active'"]
    assert names(change) == ["Start", LINK, LOCK, *between, UNLOCK, "Done"]
