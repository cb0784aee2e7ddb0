"""The workflow types: each puts the steps around the author's that every workflow of its kind needs.

===================  ==============================================================================================
decorator            steps
===================  ==============================================================================================
create_workflow      Start · *the author's* · Set subscription to 'active' · Unlock subscription · Done
modify_workflow      Start · Link process to subscription · Lock subscription · *the author's* · Unlock subscription · Done
terminate_workflow   as modify, with Set subscription to 'terminated' before the unlocking
validate_workflow    as modify, but locks without checking; a task
reconcile_workflow   as validate, but no task
task                 Start · *the author's* · Done
===================  ==============================================================================================

:func:`ensure_provisioning_status` puts two more around some of the author's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypedDict, Unpack
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.authorization import AuthCallback
from orchestrator.db.subscriptions.neighbours import Case
from orchestrator.errors import DefinitionError
from orchestrator.services.subscriptions import require_usable
from orchestrator.targets import Target
from orchestrator.types import SubscriptionLifecycle
from orchestrator.workflow import (
    Block,
    FormFunction,
    RunPredicate,
    Step,
    StepKind,
    StepList,
    Workflow,
    begin,
    done,
    init,
    leaves,
    workflow,
)
from orchestrator.workflow.language import check_description, check_form
from orchestrator.workflows.pages import product_first, subscription_first
from orchestrator.workflows.steps import (
    lock_subscriptions,
    resync,
    set_status,
    store_process_subscription,
    unsync,
    unsync_unchecked,
)


class Options(TypedDict, total=False):
    """Who may do what, how far steps run ahead, what of the state is secret; see :func:`orchestrator.workflow.workflow`."""

    authorize_callback: AuthCallback | None
    resume_auth_callback: AuthCallback | None
    retry_auth_callback: AuthCallback | None
    run_predicate: RunPredicate | None
    run_ahead: int | None
    secret_keys: Collection[str]


AuthorSteps = Callable[[], StepList | Step | Block]
Decorator = Callable[[AuthorSteps], Workflow]


def _locked(also_lock: Sequence[str]) -> StepList:
    return begin >> store_process_subscription >> (lock_subscriptions(*also_lock) if also_lock else unsync)


def create_workflow(
    description: str | None = None,
    initial_input_form: FormFunction | None = None,
    status: SubscriptionLifecycle | str = SubscriptionLifecycle.ACTIVE,
    additional_steps: StepList = begin,
    **options: Unpack[Options],
) -> Decorator:
    """Turn a function that returns steps into the workflow that makes subscriptions of a product.

    The first page asks for the product, one of those that the database links to this workflow; the author's form follows
    and may ask for ``product`` and ``product_name``. The author's steps make the subscription and return it as
    ``subscription``.

    Args:
        status: what the subscription is at the end.
        additional_steps: steps that run after the author's.
    """
    check_description(description, "create_workflow")
    last = set_status(status)

    def decorate(function: AuthorSteps) -> Workflow:
        check_form(initial_input_form, _name(function))
        form = product_first(_name(function), initial_input_form)
        return _make(
            function,
            lambda steps: init >> _and_at_the_end(steps >> additional_steps, last) >> resync >> done,
            Target.CREATE,
            description,
            form,
            options,
        )

    return decorate


def modify_workflow(
    description: str | None = None,
    initial_input_form: FormFunction | None = None,
    additional_steps: StepList = begin,
    *,
    also_lock: Sequence[str] = (),
    **options: Unpack[Options],
) -> Decorator:
    """Turn a function that returns steps into a workflow that changes a subscription.

    The first page takes ``subscription_id`` and an optional ``version``, which is refused when it is stale; the author's
    form follows and may ask for the ``subscription`` itself.

    Args:
        also_lock: keys of the state under which the form puts other subscriptions that are locked together with this one.
    """
    locked = _locked(also_lock)
    return _on_subscription(
        Target.MODIFY,
        description,
        initial_input_form,
        lambda steps: init >> locked >> steps >> additional_steps >> resync >> done,
        options,
    )


def terminate_workflow(
    description: str | None = None,
    initial_input_form: FormFunction | None = None,
    additional_steps: StepList = begin,
    *,
    also_lock: Sequence[str] = (),
    **options: Unpack[Options],
) -> Decorator:
    """Turn a function that returns steps into the workflow that ends subscriptions of a product.

    Args:
        also_lock: as for :func:`modify_workflow`.
    """
    locked = _locked(also_lock)
    last = set_status(SubscriptionLifecycle.TERMINATED)
    return _on_subscription(
        Target.TERMINATE,
        description,
        initial_input_form,
        lambda steps: init >> locked >> _and_at_the_end(steps >> additional_steps, last) >> resync >> done,
        options,
    )


def validate_workflow(
    description: str | None = None, *, retention: timedelta | None = None, **options: Unpack[Options]
) -> Decorator:
    """Turn a function that returns steps into the task that compares subscriptions with external systems.

    A failed ``assert`` in a step gives the process the status ``inconsistent_data`` and assigns it to the NOC.

    Args:
        retention: as for :func:`task`.
    """
    return _on_subscription(
        Target.VALIDATE,
        description,
        None,
        lambda steps: init >> store_process_subscription >> unsync_unchecked >> steps >> resync >> done,
        options,
        takes_version=False,
        is_task=True,
        retention=retention,
    )


def reconcile_workflow(description: str | None = None, **options: Unpack[Options]) -> Decorator:
    """Turn a function that returns steps into the workflow that brings external systems in line with the subscription.

    It takes no input but the subscription, and may run while that is out of sync.
    """
    return _on_subscription(
        Target.RECONCILE,
        description,
        None,
        lambda steps: init >> store_process_subscription >> unsync_unchecked >> steps >> resync >> done,
        options,
        takes_version=False,
    )


def task(
    description: str | None = None,
    initial_input_form: FormFunction | None = None,
    *,
    retention: timedelta | None = None,
    **options: Unpack[Options],
) -> Decorator:
    """Turn a function that returns steps into a task: a workflow of no product, on the ``tasks`` queue.

    Args:
        retention: for how long it is kept once it has ended, or ``KEEP_FOREVER``; default ``TASK_LOG_RETENTION_DAYS``.
    """
    check_description(description, "task")

    def decorate(function: AuthorSteps) -> Workflow:
        return _make(
            function,
            lambda steps: init >> steps >> done,
            Target.SYSTEM,
            description,
            initial_input_form,
            options,
            is_task=True,
            retention=retention,
        )

    return decorate


def ensure_provisioning_status(modify_steps: StepList | Step | Block) -> StepList:
    """Return steps that move the subscription to ``provisioning``, do something, and move it back to ``active``.

    For modify workflows: while the steps fail and are retried, people see that the subscription is being changed.
    """
    return (
        begin
        >> set_status(SubscriptionLifecycle.PROVISIONING)
        >> modify_steps
        >> set_status(SubscriptionLifecycle.ACTIVE)
    )


modify_initial_input_form_generator: FormFunction | None = None
"""As ``initial_input_form``: no form of the author's. Only for ports, which write it; new code leaves it out."""


def _on_subscription(
    target: Target,
    description: str | None,
    form: FormFunction | None,
    around: Callable[[StepList], StepList],
    options: Options,
    *,
    takes_version: bool = True,
    is_task: bool = False,
    retention: timedelta | None = None,
) -> Decorator:
    check_description(description, f"{target.value.lower()}_workflow")

    def decorate(function: AuthorSteps) -> Workflow:
        check_form(form, _name(function))

        async def check(session: AsyncSession, subscription_id: UUID) -> Case:
            return await require_usable(session, made, subscription_id)

        pages = subscription_first(_name(function), form, check, takes_version=takes_version)
        made = _make(function, around, target, description, pages, options, is_task=is_task, retention=retention)
        return made

    return decorate


def _make(
    function: AuthorSteps,
    around: Callable[[StepList], StepList],
    target: Target,
    description: str | None,
    form: FormFunction | None,
    options: Options,
    *,
    is_task: bool = False,
    retention: timedelta | None = None,
) -> Workflow:
    @functools.wraps(function)
    def whole() -> StepList:
        steps = begin >> function()
        markers = [leaf.name for leaf in leaves(steps) if leaf.kind in (StepKind.START, StepKind.DONE)]
        if markers:
            raise DefinitionError(
                f"the workflow {_name(function)!r} has {' and '.join(map(repr, markers))} among its own steps: its decorator puts"
                " init and done around them already, so return the steps between"
            )
        return around(steps)

    return workflow(description, form, target, is_task=is_task, retention=retention, **options)(whole)


def _and_at_the_end(steps: StepList, last: Step) -> StepList:
    """Put a step at the end, under another name if the author has the same step before."""
    if last.name in {leaf.name for leaf in leaves(steps)}:
        last = replace(last, name=f"{last.name} at the end")
    return steps >> last


def _name(function: AuthorSteps) -> str:
    return getattr(function, "__name__", "")
