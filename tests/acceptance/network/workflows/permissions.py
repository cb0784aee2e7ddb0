"""Workflows that not everybody may start, fill in or retry."""

from __future__ import annotations

from uuid import UUID

from pydantic import ConfigDict

from orchestrator.forms import FormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, conditional, inputstep, step, step_group
from orchestrator.workflows.utils import modify_workflow
from tests.acceptance.journal import is_open, note
from tests.acceptance.network.products import NodeInactive
from tests.acceptance.network.workflows.nodes import TagPage
from tests.acceptance.network.workflows.steps import obey


async def may_start(user: str, workflow: str, action: str) -> bool:
    """For everything that has no callback of its own."""
    return workflow == "guarded_change" and user in {"noc", "boss"} and action in {"start", "resume", "retry", "skip"}


def only_the_boss(user: str, step: str | None) -> bool:
    """Run as a plain function."""
    return user == "boss" and step == "Approve"


async def only_the_mechanic(user: str) -> bool:
    return user == "mechanic"


@inputstep("Approve", assignee="BOSS", resume_auth_callback=only_the_boss)
def approve(subscription: NodeInactive) -> type[FormPage]:
    """Yield a form that knows the subscription, as it is when the form is read."""

    class ApprovalPage(FormPage):
        """A decision."""

        model_config = ConfigDict(title=f"May {subscription.node.node_name} be changed?")

        approved: bool

    return ApprovalPage


@step("Mend", retry_auth_callback=only_the_mechanic)
async def mend(process_id: UUID, tag: str) -> None:
    await obey(process_id, "mend", tag)


@step("Ask once more")
async def finish(process_id: UUID, tag: str) -> None:
    await obey(process_id, "finish", tag)


def wanted(state: State) -> bool:
    """Return true; what matters is that the condition stands around the steps."""
    return "tag" in state


approval = conditional(wanted)(step_group("With approval", begin >> conditional(wanted)(approve) >> mend))


@modify_workflow("A change that needs approval", initial_input_form=lambda: TagPage, authorize_callback=may_start)
def guarded_change() -> StepList:
    return begin >> approval >> finish


async def in_season(user: str) -> bool | str:
    """Asked before any start, whoever asks."""
    if is_open("no-calendar"):
        raise LookupError("the calendar is gone")
    return True if is_open("season") else f"not before spring, {user}"


def harvest_form() -> FormGenerator:
    """Yield a form whose author did not think of everything."""
    if is_open("no-garden"):
        raise LookupError("the garden is gone")
    yield FormPage
    return {}


@step("Prune")
async def prune(process_id: UUID) -> None:
    note(process_id, "pruned")


@modify_workflow("A change that is not always possible", initial_input_form=harvest_form, run_predicate=in_season)
def seasonal_change() -> StepList:
    return begin >> prune
