"""What the pages of the field's user interface ask of REST, as recorded, and the shape of the answers that they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """A request of a page.

    Args:
        page: which.
        path: below ``/api``; names in braces are ids that the test knows.
        shape: names of the answer with their types, or the type of each item of a list; ``None`` for an empty answer.
    """

    page: str
    method: str
    path: str
    status: int
    shape: Any = None
    body: Any = None


OPTIONAL_TEXT = (str, type(None))
FORM = {"form": {"title": str, "type": str, "properties": dict}, "meta": {"hasNext": bool}}
OFFER = {"name": str, "description": str}
ENGINE = {"global_lock": bool, "global_status": str, "running_processes": int}
SCHEDULE = {
    "scheduled_type": "create",
    "name": "at night",
    "workflow_name": "greeting",
    "workflow_id": "{greeting}",
    "trigger": "interval",
    "trigger_kwargs": {"start_date": "2030-01-01T00:00:00Z", "hours": 2},
    "user_inputs": [{"name": "ana"}, {"tone": "kind"}],
}

REQUESTS = (
    Recorded("every page", "GET", "/settings/status", 200, ENGINE),
    Recorded("every page", "GET", "/processes/status-counts", 200, {"process_counts": dict, "task_counts": dict}),
    Recorded("every page", "GET", "/translations/en-GB", 200, {"forms": {"fields": dict}}),
    Recorded("process", "GET", "/processes/{failed}", 200, {"process_id": str, "current_state": dict}),
    Recorded("process", "PATCH", "/processes/{failed}", 200, dict, {"note": "called the customer"}),
    Recorded("process", "PATCH", "/processes/{failed}", 200, dict, {"note": None}),
    Recorded(
        "process",
        "PUT",
        "/processes/{suspended}/resume",
        400,
        {"validation_errors": [{"loc": list, "msg": str, "type": str}]},
        [{}],
    ),
    Recorded("process", "PUT", "/processes/{suspended}/resume", 204, None, [{"approved": True}]),
    Recorded("process", "PUT", "/processes/{failed}/resume", 204, None, {}),
    Recorded("process", "PUT", "/processes/{failed}/abort", 204),
    Recorded("task", "DELETE", "/processes/{task}", 204),
    Recorded("tasks", "PUT", "/processes/resume-all", 200, {"count": int}),
    Recorded("wizard", "POST", "/processes/greeting", 510, FORM, []),
    Recorded(
        "wizard",
        "POST",
        "/processes/greeting",
        400,
        {"validation_errors": [{"loc": list, "msg": str}]},
        [{"count": "many"}],
    ),
    Recorded("wizard", "POST", "/processes/greeting", 510, FORM, [{"name": "ana"}]),
    Recorded("wizard", "POST", "/processes/greeting", 201, {"id": str}, [{"name": "ana"}, {"tone": "kind"}]),
    Recorded("wizard", "POST", "/processes/refusing", 412, {"detail": str}, []),
    Recorded(
        "subscriptions",
        "POST",
        "/search/subscriptions",
        200,
        {
            "data": [
                {"entity_id": str, "entity_type": str, "entity_title": str, "score": float, "response_columns": dict}
            ],
            "page_info": {"has_next_page": bool, "next_page_cursor": OPTIONAL_TEXT},
            "cursor": {"total_items": int},
            "search_metadata": {"search_type": str, "description": str},
        },
        {
            "query": "",
            "filters": {"bool": {"must": [{"term": {"subscription.status": "active"}}]}},
            "limit": 15,
            "order_by": {"element": "subscription.start_date", "direction": "desc"},
            "response_columns": ["subscription.status", "subscription.insync", "subscription.customer_name"],
        },
    ),
    Recorded("subscriptions", "GET", "/search/definitions", 200, dict),
    Recorded(
        "subscriptions",
        "GET",
        "/search/paths?q=status&entity_type=SUBSCRIPTION",
        200,
        {"leaves": list, "components": list},
    ),
    Recorded(
        "subscription",
        "GET",
        "/subscriptions/workflows/{subscription}",
        200,
        {"create": list, "modify": [OFFER], "terminate": list, "system": list, "validate": list, "reconcile": list},
    ),
    Recorded("subscription", "PUT", "/subscriptions/{subscription}/set_in_sync", 200, dict),
    Recorded("subscription", "GET", "/subscriptions/domain-model/{nothing}", 404, {"detail": str}),
    Recorded("metadata", "PATCH", "/products/{product}", 200, dict, {"description": "ten gigabits"}),
    Recorded("metadata", "PATCH", "/products/{product}", 200, dict, {"status": "end_of_life"}),
    Recorded("metadata", "PATCH", "/product_blocks/{block}", 200, dict, {"description": "a port"}),
    Recorded("metadata", "PATCH", "/resource_types/{type}", 200, dict, {"description": "a name"}),
    Recorded("metadata", "PATCH", "/workflows/{greeting}", 200, dict, {"description": "Greets people"}),
    Recorded("scheduled tasks", "POST", "/schedules/", 201, {"id": str}, SCHEDULE),
    Recorded("scheduled tasks", "POST", "/forms/configure_schedule", 510, FORM, []),
    Recorded(
        "scheduled tasks",
        "DELETE",
        "/schedules/",
        200,
        dict,
        {"scheduled_type": "delete", "workflow_id": "{greeting}", "schedule_id": "{schedule}"},
    ),
    Recorded("settings", "GET", "/settings/cache-names", 200, dict),
    Recorded(
        "settings",
        "GET",
        "/settings/overview",
        200,
        [{"name": str, "variables": [{"env_name": str, "env_value": str}]}],
    ),
    Recorded("settings", "PUT", "/settings/status", 200, ENGINE, {"global_lock": True}),
    Recorded("settings", "PUT", "/settings/status", 200, ENGINE, {"global_lock": False}),
)


def find_difference(shape: Any, value: Any, place: str = "") -> str | None:
    """Return where a value has not the shape that a page reads; ``None`` if it has."""
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return f"{place} is no list, or has nothing in it: {value!r}"
        return next((found for one in value if (found := find_difference(shape[0], one, f"{place}[]"))), None)
    if isinstance(shape, Mapping):
        missing = [name for name in shape if not isinstance(value, Mapping) or name not in value]
        if missing:
            return f"{place} lacks {missing}: {value!r}"
        return next(
            (found for name in shape if (found := find_difference(shape[name], value[name], f"{place}.{name}"))), None
        )
    return None if isinstance(value, shape) else f"{place} is {value!r}"
