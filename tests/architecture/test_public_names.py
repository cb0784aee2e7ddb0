"""The names that users import. They change only with a version and a changelog entry."""

from __future__ import annotations

import importlib

import orchestrator
from orchestrator.engine import decide, decision
from orchestrator.targets import Target

AUTHORING = {
    "orchestrator.workflow": [
        "StepList",
        "begin",
        "init",
        "done",
        "step",
        "retrystep",
        "inputstep",
        "conditional",
        "callback_step",
        "step_group",
        "again",
        "workflow",
    ],
    "orchestrator.workflows": ["LazyWorkflowInstance", "Schedule"],
    "orchestrator.workflows.utils": [
        "create_workflow",
        "modify_workflow",
        "terminate_workflow",
        "validate_workflow",
        "reconcile_workflow",
        "task",
        "ensure_provisioning_status",
    ],
    "orchestrator.workflows.steps": [
        "set_status",
        "store_process_subscription",
        "unsync",
        "unsync_unchecked",
        "resync",
    ],
    "orchestrator.workflows.predicates": ["no_uncompleted_instance"],
    "orchestrator.services.subscriptions": [
        "WF_USABLE_MAP",
        "WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS",
        "WF_USABLE_WHILE_OUT_OF_SYNC",
        "find_subscriptions",
        "find_blocks_using",
    ],
    "orchestrator.services.products": ["get_product_by_id", "get_product_by_name"],
    "orchestrator.domain": ["SubscriptionModel", "ProductBlockModel", "SUBSCRIPTION_MODEL_REGISTRY"],
    "orchestrator.targets": ["Target"],
    "orchestrator.types": ["State", "ProcessStatus", "StepStatus", "SubscriptionLifecycle", "Assignee"],
    "orchestrator.forms": ["FormPage", "FormGenerator", "AsyncFormGenerator"],
    "orchestrator.retry": ["RetryPolicy"],
    "orchestrator.testing": [
        "Engine",
        "ProcessUnderTest",
        "WorkflowDatabase",
        "open_database",
        "open_engine",
        "run_form_generator",
        "assert_complete",
        "assert_suspended",
        "assert_waiting",
        "assert_awaiting_callback",
        "assert_failed",
        "assert_aborted",
        "assert_status",
        "assert_step_name",
        "assert_assignee",
        "assert_state",
        "assert_state_equal",
        "extract_state",
        "extract_error",
        "describe",
    ],
    "orchestrator.errors": ["OrchestratorError", "ProcessFailureError", "CommitNotAllowedError", "DefinitionError"],
}


def test_the_package_itself_has_only_its_version() -> None:
    public = {name for name in vars(orchestrator) if not name.startswith("_")}
    submodules = {name for name in public if type(vars(orchestrator)[name]).__name__ == "module"}

    assert public - submodules == set()
    assert orchestrator.__version__.count(".") == 2


def test_what_authors_import_is_there() -> None:
    modules = {name: importlib.import_module(name) for name in AUTHORING}

    assert [
        (module, name) for module, names in AUTHORING.items() for name in names if not hasattr(modules[module], name)
    ] == []


def test_the_targets_are_pinned() -> None:
    assert [target.value for target in Target] == [
        "CREATE",
        "MODIFY",
        "TERMINATE",
        "SYSTEM",
        "VALIDATE",
        "RECONCILE",
    ]


def test_names_of_the_core_can_still_be_imported_from_where_they_were_first() -> None:
    for name in decide.__all__:
        assert getattr(decide, name) is (decide.decide if name == "decide" else getattr(decision, name))
