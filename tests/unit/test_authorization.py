"""B38: who may start, resume and retry; asked by name, kept through every wrapper, closed when in doubt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.authorization import Action, Attempted, Role, User, given
from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError, ForbiddenError
from orchestrator.messages import StartWorkflow
from orchestrator.services.hooks import authorize
from orchestrator.workflow import (
    Step,
    StepList,
    begin,
    callback_step,
    conditional,
    inputstep,
    retrystep,
    step,
    step_group,
    workflow,
)
from orchestrator.workflows.utils import (
    create_workflow,
    modify_workflow,
    reconcile_workflow,
    task,
    terminate_workflow,
    validate_workflow,
)

ASKED = Attempted("ann", "create_node", "Reserve", Action.RETRY)


async def asynchronous(user: str) -> bool:
    return user == "ann"


def plain(user: str, workflow: str, step: str | None, action: str) -> bool:
    return (user, workflow, step, action) == ("ann", "create_node", "Reserve", "retry")


async def everything(**asked: object) -> bool:
    place = {"user": "ann", "workflow": "create_node", "step": "Reserve", "action": "retry"}
    assert isinstance(asked.pop("session"), AsyncSession)
    return asked == {**place, "roles": frozenset(), "claims": {}}


async def nothing() -> bool:
    return True


def optional(user: str, unknown: int = 3) -> bool:
    return user == "ann" and unknown == 3


class Office:
    def __call__(self, action: str) -> bool:
        return action == "retry"


@pytest.mark.parametrize("callback", [asynchronous, plain, everything, nothing, optional, Office(), None])
async def test_a_callback_of_any_style_is_asked_for_what_it_names(callback: Callable[..., Any] | None) -> None:
    await authorize(callback, ASKED, AsyncSession())


@pytest.mark.parametrize("said", [False, None, 0, ""])
async def test_anything_but_yes_is_no(said: object) -> None:
    with pytest.raises(ForbiddenError, match="'ann' may not retry the step 'Reserve' of the workflow 'create_node'"):
        await authorize(lambda: said, ASKED, AsyncSession())  # type: ignore[arg-type]


async def test_a_callback_that_raises_allows_nothing() -> None:
    def broken() -> bool:
        raise ConnectionError("the directory is away")

    with pytest.raises(ForbiddenError, match=r"could not be decided .* ConnectionError: the directory is away"):
        await authorize(broken, ASKED, AsyncSession())


async def test_a_callback_may_refuse_with_a_text_of_its_own() -> None:
    async def strict() -> bool:
        raise ForbiddenError("only during office hours")

    with pytest.raises(ForbiddenError, match=r"^only during office hours$"):
        await authorize(strict, ASKED, AsyncSession())


NOC = User("ann", [Role.OPERATE], {"groups": ["noc"]})


@pytest.mark.parametrize(
    ("user", "allowed"), [(NOC, True), (User("ann", [Role.READ], {"groups": ["sales"]}), False), ("ann", False)]
)
async def test_a_callback_may_decide_by_roles_and_claims_which_a_plain_name_does_not_have(
    user: str, allowed: bool
) -> None:
    def by_group(claims: dict[str, Any]) -> bool:
        return "noc" in claims.get("groups", ())

    def by_role(roles: frozenset[str]) -> bool:
        return "operate" in roles

    for callback in (by_group, by_role):
        with nullcontext() if allowed else pytest.raises(ForbiddenError, match="'ann' may not start"):
            await authorize(callback, Attempted(user, "create_node", None, Action.START), AsyncSession())


async def test_a_callback_that_changes_the_claims_changes_them_for_itself_only() -> None:
    def careless(claims: dict[str, Any]) -> bool:
        claims["groups"] = ["admins"]
        return True

    await authorize(careless, Attempted(NOC, "create_node", None, Action.START), AsyncSession())
    assert NOC.claims == {"groups": ["noc"]}


def test_each_role_includes_those_before_it() -> None:
    assert User("ann", [Role.ADMIN]).roles == set(Role)
    assert User("ann", [Role.START, Role.READ]).roles == {Role.READ, Role.START}
    assert User("ann").roles == set()


def test_a_user_is_stored_and_sent_as_the_plain_name() -> None:
    assert NOC == "ann"
    assert StartWorkflow(workflow="w", user=NOC).model_dump_json() == (
        '{"version":1,"workflow":"w","inputs":[],"user":"ann","idempotency_key":null}'
    )
    assert User.of(NOC) is NOC
    assert User.of("bob").claims == {}


def test_an_answer_is_given_only_what_the_function_names() -> None:
    assert given(lambda workflow: workflow, {"user": "ann", "workflow": "w", "session": object()})() == "w"


def _deny(**_: object) -> bool:
    return False


def _wrong(directory: object) -> bool:
    return bool(directory)


@step("Run")
def run() -> None: ...


@inputstep("Ask")
def ask() -> Any: ...


DECORATED: dict[str, Callable[[], object]] = {
    "step": lambda: step("Run", retry_auth_callback=_wrong)(lambda: None),
    "retrystep": lambda: retrystep("Run", retry_auth_callback=_wrong)(lambda: None),
    "inputstep, resume": lambda: inputstep("Ask", resume_auth_callback=_wrong)(lambda: None),
    "inputstep, retry": lambda: inputstep("Ask", retry_auth_callback=_wrong)(lambda: None),
    "step_group": lambda: step_group("Group", begin >> run, resume_auth_callback=_wrong),
    "callback_step": lambda: callback_step("Wait", run, step("Judge")(lambda: None), retry_auth_callback=_wrong),
    "workflow": lambda: workflow("w", authorize_callback=_wrong)(_one_step),
    "not a function": lambda: workflow("w", retry_auth_callback="nobody")(_one_step),  # type: ignore[arg-type]
    "predicate": lambda: workflow("w", run_predicate=_wrong)(_one_step),
}


def _one_step() -> StepList:
    return begin >> run


@pytest.mark.parametrize("case", DECORATED)
def test_a_callback_that_nobody_can_ask_is_refused_where_it_is_written(case: str) -> None:
    with pytest.raises(DefinitionError, match=r"asks for 'directory'; only these are passed|takes a function, not"):
        DECORATED[case]()


def only(name: str) -> Callable[..., bool]:
    """A callback that can be told from others."""

    def callback() -> bool:
        return False

    callback.__name__ = name
    return callback


INNER, GROUP, WHOLE, START = only("inner"), only("group"), only("whole"), only("start")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: one,
        conditional(lambda: True),
        lambda one: conditional(lambda: True)(conditional(lambda: False)(one)),
        lambda one: step_group("Group", begin >> one, retry_auth_callback=GROUP, resume_auth_callback=GROUP),
        lambda one: conditional(lambda: True)(step_group("Group", begin >> one, retry_auth_callback=GROUP)),
        lambda one: step_group("Outer", begin >> step_group("Group", begin >> one), retry_auth_callback=GROUP),
    ],
)
def test_a_steps_own_callbacks_survive_every_wrapper(wrap: Callable[[Step], Any]) -> None:
    own = inputstep("Own", resume_auth_callback=INNER, retry_auth_callback=INNER)(lambda: None)

    @workflow("w", authorize_callback=START, resume_auth_callback=WHOLE, retry_auth_callback=WHOLE)
    def whole() -> Any:
        return begin >> wrap(own)

    plan = Plan.of(whole)
    assert plan.authorizer(Action.RESUME, plan.leaves[0]) is INNER
    assert plan.authorizer(Action.RETRY, plan.leaves[0]) is INNER
    assert plan.authorizer(Action.SKIP, plan.leaves[0]) is INNER
    assert plan.authorizer(Action.START) is START


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: step_group("Group", begin >> one, retry_auth_callback=GROUP, resume_auth_callback=GROUP),
        lambda one: conditional(lambda: True)(
            step_group(
                "Group", begin >> conditional(lambda: True)(one), retry_auth_callback=GROUP, resume_auth_callback=GROUP
            )
        ),
        lambda one: step_group(
            "Outer",
            begin >> step_group("Group", begin >> one, retry_auth_callback=GROUP, resume_auth_callback=GROUP),
            retry_auth_callback=WHOLE,
            resume_auth_callback=WHOLE,
        ),
    ],
)
def test_a_step_without_callbacks_has_those_of_the_nearest_group(wrap: Callable[[Step], Any]) -> None:
    @workflow("w", authorize_callback=START)
    def whole() -> Any:
        return begin >> wrap(ask)

    plan = Plan.of(whole)
    assert plan.authorizer(Action.RESUME, plan.leaves[0]) is GROUP
    assert plan.authorizer(Action.RETRY, plan.leaves[0]) is GROUP


def test_all_parts_of_a_callback_step_have_its_callback_and_keep_their_own() -> None:
    judge = step("Judge", retry_auth_callback=INNER)(lambda: None)

    @workflow("w")
    def whole() -> StepList:
        return begin >> callback_step("Wait", run, judge, retry_auth_callback=GROUP)

    plan = Plan.of(whole)
    assert [plan.authorizer(Action.RETRY, leaf) for leaf in plan.leaves] == [GROUP, GROUP, INNER]


def test_without_callbacks_of_their_own_resuming_and_retrying_ask_who_may_start() -> None:
    @workflow("w", authorize_callback=START)
    def whole() -> StepList:
        return begin >> ask

    plan = Plan.of(whole)
    assert {plan.authorizer(action, plan.leaves[0]) for action in Action} == {START}


@pytest.mark.parametrize(
    "kind",
    [create_workflow, modify_workflow, terminate_workflow, validate_workflow, reconcile_workflow, task],
    ids=lambda kind: str(kind.__name__),
)
def test_every_workflow_type_takes_and_keeps_callbacks(kind: Callable[..., Any]) -> None:
    made = kind(
        "w",
        authorize_callback=START,
        resume_auth_callback=WHOLE,
        retry_auth_callback=GROUP,
        run_predicate=nothing,
    )(_one_step)

    assert made.authorize_callback is START
    assert made.resume_auth_callback is WHOLE
    assert made.retry_auth_callback is GROUP
    assert made.run_predicate is nothing
