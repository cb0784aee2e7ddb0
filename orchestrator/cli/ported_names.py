"""Where each name that ports import from orchestrator-core is here: what ``orchestrator port`` and the porting guide go by.

The names are those of versions 2 to 5. Version 5 has them below ``orchestrator.core``: take ``.core`` out, and look here.
A name is written ``module:name``. Modules that are not listed at all are not offered, for the reason of the nearest package in
:data:`PACKAGES_NOT_OFFERED`.
"""

from __future__ import annotations

PREFIX = "orchestrator.core"
"""What version 5 writes instead of ``orchestrator``."""

KEPT: dict[str, tuple[str, ...]] = {
    "orchestrator.config.assignee": ("Assignee",),
    "orchestrator.domain": (
        "ProductBlockModel",
        "ProductModel",
        "SUBSCRIPTION_MODEL_REGISTRY",
        "SubscriptionModel",
    ),
    "orchestrator.domain.base": ("ProductBlockModel", "ProductModel", "SubscriptionModel"),
    "orchestrator.forms": ("FormPage", "SubmitFormPage"),
    "orchestrator.forms.validators": (
        "Accept",
        "Choice",
        "ContactPerson",
        "ContactPersonName",
        "CustomerId",
        "DisplaySubscription",
        "Divider",
        "Label",
        "ListOfOne",
        "ListOfTwo",
        "LongText",
        "MigrationSummary",
        "OrganisationId",
        "Timestamp",
        "choice_list",
        "contact_person_list",
        "migration_summary",
        "remove_empty_items",
        "strEnum",
        "timestamp",
        "unique_conlist",
    ),
    "orchestrator.migrations.helpers": (
        "add_product_block_relation_between_products_by_id",
        "add_products_to_workflow_by_product_tag",
        "create",
        "create_fixed_inputs",
        "create_product_blocks",
        "create_products",
        "create_resource_types_for_product_blocks",
        "create_task",
        "create_workflow",
        "create_workflows",
        "delete",
        "delete_product",
        "delete_product_block",
        "delete_resource_type",
        "delete_resource_types",
        "delete_resource_types_from_product_blocks",
        "delete_workflow",
        "ensure_default_workflows",
        "get_product_block_id_by_name",
        "get_product_id_by_name",
        "get_product_ids_by_product_type",
        "get_resource_type_id_by_name",
        "has_table_column",
        "insert_resource_type",
        "remove_product_block_relation_between_products_by_id",
        "remove_products_from_workflow_by_product_tag",
    ),
    "orchestrator.services.products": ("get_product_by_id", "get_product_by_name"),
    "orchestrator.services.subscriptions": (
        "WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS",
        "WF_USABLE_MAP",
        "WF_USABLE_WHILE_OUT_OF_SYNC",
    ),
    "orchestrator.targets": ("Target",),
    "orchestrator.types": (
        "AcceptData",
        "AcceptItemType",
        "FormGenerator",
        "InputForm",
        "InputFormGenerator",
        "InputStepFunc",
        "JSON",
        "SI",
        "SimpleInputFormGenerator",
        "State",
        "StateInputFormGenerator",
        "StateInputStepFunc",
        "StateSimpleInputFormGenerator",
        "SubscriptionLifecycle",
        "SubscriptionMapping",
        "SummaryData",
        "UUIDstr",
        "strEnum",
    ),
    "orchestrator.utils.errors": ("ProcessFailureError",),
    "orchestrator.workflow": (
        "RunPredicate",
        "Step",
        "StepList",
        "Workflow",
        "begin",
        "callback_step",
        "conditional",
        "done",
        "init",
        "inputstep",
        "retrystep",
        "step",
        "step_group",
        "workflow",
    ),
    "orchestrator.workflows": ("LazyWorkflowInstance",),
    "orchestrator.workflows.predicates": ("no_uncompleted_instance",),
    "orchestrator.workflows.steps": (
        "resync",
        "set_status",
        "store_process_subscription",
        "unsync",
        "unsync_unchecked",
    ),
    "orchestrator.workflows.utils": (
        "create_workflow",
        "ensure_provisioning_status",
        "modify_initial_input_form_generator",
        "modify_workflow",
        "reconcile_workflow",
        "task",
        "terminate_workflow",
        "validate_workflow",
    ),
}
"""Module → names that stand in the same module here: nothing to change."""

MOVED: dict[str, str] = {
    "orchestrator:begin": "orchestrator.workflow:begin",
    "orchestrator:conditional": "orchestrator.workflow:conditional",
    "orchestrator:done": "orchestrator.workflow:done",
    "orchestrator:inputstep": "orchestrator.workflow:inputstep",
    "orchestrator:retrystep": "orchestrator.workflow:retrystep",
    "orchestrator:step": "orchestrator.workflow:step",
    "orchestrator:workflow": "orchestrator.workflow:workflow",
    "orchestrator.db:FixedInputTable": "orchestrator.db.tables:FixedInputRow",
    "orchestrator.db:ProcessSubscriptionTable": "orchestrator.db.tables:ProcessSubscriptionRow",
    "orchestrator.db:ProcessTable": "orchestrator.db.tables:ProcessRow",
    "orchestrator.db:ProductBlockTable": "orchestrator.db.tables:ProductBlockRow",
    "orchestrator.db:ProductTable": "orchestrator.db.tables:ProductRow",
    "orchestrator.db:ResourceTypeTable": "orchestrator.db.tables:ResourceTypeRow",
    "orchestrator.db:SubscriptionInstanceRelationTable": "orchestrator.db.tables:SubscriptionInstanceRelationRow",
    "orchestrator.db:SubscriptionInstanceTable": "orchestrator.db.tables:SubscriptionInstanceRow",
    "orchestrator.db:SubscriptionTable": "orchestrator.db.tables:SubscriptionRow",
    "orchestrator.db:WorkflowTable": "orchestrator.db.tables:WorkflowRow",
    "orchestrator.domain.base:serializable_property": "pydantic:computed_field",
    "orchestrator.forms:DisplayOnlyFieldType": "pydantic_forms.core:DisplayOnlyFieldType",
    "orchestrator.forms:FormNotCompleteError": "pydantic_forms.exceptions:FormNotCompleteError",
    "orchestrator.forms:FormValidationError": "pydantic_forms.exceptions:FormValidationError",
    "orchestrator.forms:ReadOnlyField": "pydantic_forms.validators:read_only_field",
    "orchestrator.utils.errors:InconsistentDataError": "orchestrator.errors:ProcessFailureError",
    "orchestrator.utils.errors:StaleDataError": "orchestrator.errors:StaleVersionError",
    "orchestrator.utils.json:to_serializable": "pydantic_core:to_jsonable_python",
    "orchestrator.workflow:ProcessStatus": "orchestrator.types:ProcessStatus",
    "orchestrator.workflow:StepStatus": "orchestrator.types:StepStatus",
    "orchestrator.workflows:get_workflow": "orchestrator.registry:plan_of",
}
"""Name → the name that takes its place. ``orchestrator.db.models`` has the same names as ``orchestrator.db``."""

_USES_A_SESSION = (
    "ask for a parameter 'session' and use that: it belongs to the step's transaction, and the engine commits"
)
_CACHE = "leave it out: models are read from the database, always"
_INDEX = "leave it out: lists and the search read the tables themselves"
_SETTINGS = (
    "settings are environment variables named ORCHESTRATOR_…; for those of your own derive from pydantic's BaseSettings"
)
_PROGRAMS = "leave it out: the programs are 'orchestrator api', 'orchestrator coordinator' and 'orchestrator consumer'"
_PRODUCTS = "product_choice of orchestrator.workflows.pages offers the products of a workflow"
_STATE = "give the step's keys of the state names of their own"
_OWN_TABLES = "derive tables of your own from a sqlalchemy.orm.DeclarativeBase of your own"

NOT_OFFERED: dict[str, str] = {
    "orchestrator:OrchestratorCore": _PROGRAMS,
    "orchestrator:app_settings": _SETTINGS,
    "orchestrator:focussteps": _STATE,
    "orchestrator:steplens": _STATE,
    "orchestrator.db:EngineSettingsTable": "'orchestrator pause' and 'orchestrator unpause', or the engine's routes of the API",
    "orchestrator.db:InputStateTable": "the log has what was filled in",
    "orchestrator.db:ProcessStepTable": "orchestrator.db.tables has LogRow: one row per attempt, with what it has changed",
    "orchestrator.db:SubscriptionCustomerDescriptionTable": "keep descriptions of customers in a table of your own",
    "orchestrator.db:SubscriptionInstanceValueTable": (
        "the values of a block are one JSON object, SubscriptionInstanceRow.resources: use find_subscriptions or"
        " find_blocks_using of orchestrator.services.subscriptions"
    ),
    "orchestrator.db:SubscriptionMetadataTable": "keep metadata in a table of your own, or in a field of the model",
    "orchestrator.db:UtcTimestamp": "use sqlalchemy.DateTime(timezone=True)",
    "orchestrator.db:UtcTimestampError": "use sqlalchemy.DateTime(timezone=True)",
    "orchestrator.db:db": _USES_A_SESSION,
    "orchestrator.db:init_database": _PROGRAMS,
    "orchestrator.db:transactional": "leave it out: a step is one transaction already",
    "orchestrator.db.database:BaseModel": _OWN_TABLES,
    "orchestrator.domain.base:SubscriptionInstanceList": (
        "annotate the list: ListOfSaps = Annotated[list[SI], Len(min_length=2, max_length=8)], with SI of orchestrator.types"
    ),
    "orchestrator.domain.lifecycle:change_lifecycle": "SubscriptionModel.from_other_lifecycle(subscription, status)",
    "orchestrator.forms.validators:BFD": "define the field in your project",
    "orchestrator.forms.validators:MTU": "define the field in your project, such as Annotated[int, Ge(1500), Le(9000)]",
    "orchestrator.forms.validators:ProductId": _PRODUCTS,
    "orchestrator.forms.validators:ProductIdError": "raise a ValueError",
    "orchestrator.forms.validators:VlanRanges": "import it from nwastdlib.vlans, and add nwastdlib to your project",
    "orchestrator.forms.validators:customer_contact_list": "contact_person_list of pydantic_forms.validators",
    "orchestrator.forms.validators:organisation_contact_list": "contact_person_list of pydantic_forms.validators",
    "orchestrator.forms.validators:product_id": _PRODUCTS,
    "orchestrator.migrations.helpers:backfill_resource_type_with_default": "fill_values of orchestrator.db.registration",
    "orchestrator.migrations.helpers:convert_instance_relations_to_resource_type_relations_by_domain_model_attr": (
        "a task of yours that changes the models"
    ),
    "orchestrator.migrations.helpers:convert_resource_type_relations_to_instance_relations": (
        "a task of yours that changes the models"
    ),
    "orchestrator.migrations.helpers:delete_products_by_tag": "remove_product of orchestrator.db.registration, for each",
    "orchestrator.migrations.helpers:delete_resource_type_by_id": "delete_resource_type, by its name",
    "orchestrator.migrations.helpers:get_fixed_input_id_by_name": "fixed inputs have no id: they belong to their product",
    "orchestrator.migrations.helpers:remove_resource_type_from_subscription_instance": (
        'remove_resource_type(connection, name, values="drop") of orchestrator.db.registration'
    ),
    "orchestrator.schedules.scheduling:scheduler": "Schedule(name, workflow, cron=…) of orchestrator.workflows",
    "orchestrator.services.processes:start_process": (
        "start_processes of orchestrator.workflows.steps starts them in the commit of the step"
    ),
    "orchestrator.services.products:get_products": "select(ProductRow) of orchestrator.db.tables",
    "orchestrator.services.products:get_tags": "select(ProductRow.tag).distinct()",
    "orchestrator.services.products:get_types": "select(ProductRow.product_type).distinct()",
    "orchestrator.services.subscriptions:RELATION_RESOURCE_TYPES": "leave it out: relations are blocks in fields",
    "orchestrator.services.subscriptions:build_extended_domain_model": (
        "show of orchestrator.services.subscriptions, or GET /api/subscriptions/domain-model/{subscription_id}"
    ),
    "orchestrator.services.subscriptions:get_subscription": (
        "SubscriptionModel.from_subscription(session, subscription_id), which has its product, or session.get(SubscriptionRow,"
        " subscription_id), which has columns only"
    ),
    "orchestrator.services.subscriptions:query_depends_on_subscriptions": "subscription.depends_on(session)",
    "orchestrator.services.subscriptions:query_in_use_by_subscriptions": "subscription.in_use_by(session)",
    "orchestrator.services.subscriptions:retrieve_subscription_by_subscription_instance_value": (
        "find_subscriptions(session, block=…, values={resource_type: value}) of orchestrator.services.subscriptions"
    ),
    "orchestrator.services.subscriptions:update_subscription": "change the model, and return it",
    "orchestrator.services.subscriptions:update_subscription_description": "set model.description, and return the model",
    "orchestrator.services.subscriptions:update_subscription_status": "set_status of orchestrator.workflows.steps",
    "orchestrator.settings:AppSettings": _SETTINGS,
    "orchestrator.settings:app_settings": _SETTINGS,
    "orchestrator.types:BroadcastFunc": "leave it out: every change is an event on the broker and a stream of the API",
    "orchestrator.types:ErrorDict": "errors in the log are JSON: use dict[str, Any]",
    "orchestrator.types:StepFunc": "Callable[..., State | None]",
    "orchestrator.utils.datetime:nowtz": "datetime.now(UTC)",
    "orchestrator.utils.errors:ApiException": "raise ProcessFailureError(message, details)",
    "orchestrator.utils.errors:error_state_to_dict": "leave it out: the engine logs errors",
    "orchestrator.utils.errors:is_api_exception": "leave it out: the engine logs errors",
    "orchestrator.utils.json:json_dumps": "pydantic_core.to_json(…).decode()",
    "orchestrator.utils.json:json_loads": "pydantic_core.from_json(…)",
    "orchestrator.workflow:PredicateContext": "a run predicate asks by name for user, workflow and session",
    "orchestrator.workflow:Process": "a step returns keys for the state, or raises",
    "orchestrator.workflow:ProcessStat": "a step asks for process_id",
    "orchestrator.workflow:abort": "raise ProcessFailureError(…); an operator aborts",
    "orchestrator.workflow:focussteps": _STATE,
    "orchestrator.workflow:make_workflow": "the decorator workflow of orchestrator.workflow",
    "orchestrator.workflow:steplens": _STATE,
    "orchestrator.workflows:ALL_WORKFLOWS": "known_workflows() of orchestrator.registry has the names",
    "orchestrator.workflows.steps:cache_domain_models": _CACHE,
    "orchestrator.workflows.steps:refresh_process_search_index": _INDEX,
    "orchestrator.workflows.steps:refresh_subscription_search_index": _INDEX,
    "orchestrator.workflows.steps:remove_domain_model_from_cache": _CACHE,
    "orchestrator.workflows.steps:store_process_subscription_relationship": (
        "leave it out: a process is linked to every subscription that its steps save"
    ),
    "orchestrator.workflows.utils:obsolete_step": "leave it out: a process finds its place by the name of its step",
    "orchestrator.workflows.utils:validate_initial_input_form_generator": "validate_workflow brings its form",
    "orchestrator.workflows.utils:wrap_create_initial_input_form": "create_workflow brings the page for the product",
    "orchestrator.workflows.utils:wrap_modify_initial_input_form": "modify_workflow brings the page for the subscription",
}
"""Name → what to do instead."""

PACKAGES_NOT_OFFERED: dict[str, str] = {
    "orchestrator.api": "the API is a program of its own, 'orchestrator api'; serve routes of yours by a program of yours",
    "orchestrator.app": _PROGRAMS,
    "orchestrator.cli": "the command line is 'orchestrator'",
    "orchestrator.db": "of orchestrator.db only tables are offered, under orchestrator.db.tables",
    "orchestrator.devtools": "see docs/test-workflows.md",
    "orchestrator.graphql": "there is no GraphQL: the HTTP API has lists, models and streams",
    "orchestrator.llm": "there is none",
    "orchestrator.log_config": "logging is set by ORCHESTRATOR_LOG_LEVEL and ORCHESTRATOR_LOG_FORMAT",
    "orchestrator.schedules": "Schedule(name, workflow, cron=…) of orchestrator.workflows",
    "orchestrator.search": _INDEX,
    "orchestrator.security": "see docs/api-authentication.md; permissions of workflows are their authorize_callback",
    "orchestrator.services.tasks": _PROGRAMS,
    "orchestrator.settings": _SETTINGS,
    "orchestrator.utils": "copy the function into your project",
    "orchestrator.websocket": "leave it out: every change is an event on the broker and a stream of the API",
}
"""Package → what to do instead of anything in it that is not listed by its name."""
