"""The second story's other entrance: the HTTP API, for everything that is done and everything that is looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tests.acceptance.programs import Api

from .entrance import Answer
from .patience import DemoError
from .stage import Stage

SHOWN = 1500
"""Characters of a document that are printed."""


@dataclass(frozen=True, slots=True)
class OverHttp:
    """A user interface, as the API sees it."""

    stage: Stage
    api: Api

    def ask_to_start(self, workflow: str, *pages: Mapping[str, Any], by_hand: bool = False) -> Answer:
        del by_hand  # there is one way only
        answer = self.api.call("POST", f"/processes/{workflow}", json=pages)
        document = answer.json()
        if answer.status_code == HTTPStatus.CREATED:
            return Answer(document["id"])
        text = f"{answer.status_code} {document['title']}: {document['detail']}"
        return Answer(None, text, document["reasons"], document.get("form") or {})

    def give_input(self, process_id: str, page: Mapping[str, Any]) -> None:
        self._do(f"/processes/{process_id}/resume", json=[page])

    def retry(self, process_id: str) -> None:
        self._do(f"/processes/{process_id}/resume", json={})

    def abort(self, process_id: str, reason: str) -> None:
        self._do(f"/processes/{process_id}/abort", json={"reason": reason})

    def standing(self, process_id: str) -> dict[str, Any]:
        found = self._get(f"/processes/{process_id}")
        failures = [one["failure"]["message"] for one in found["steps"] if one["failure"]]
        return {
            "workflow": found["workflow_name"],
            "status": found["last_status"],
            "step": found["last_step"],
            "assignee": found["assignee"],
            "subscription_id": next((one["subscription_id"] for one in found["subscriptions"]), None),
            "failure": failures[-1] if failures else None,
        }

    def subscription(self, subscription_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._get(f"/subscriptions/{subscription_id}")
        return found

    def subscriptions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("/subscriptions?range=0,99")
        return found

    def history(self, subscription_id: str) -> list[dict[str, Any]]:
        found = self._get(f"/subscriptions/{subscription_id}/history?limit=100")
        return [one["process"] for one in found["processes"]]

    def show(self, what: str, subscription_id: str = "") -> None:
        path = {
            "list": "/subscriptions?sort=description,asc",
            "show": f"/subscriptions/{subscription_id}",
            "workflows": f"/subscriptions/workflows/{subscription_id}",
            "history": f"/subscriptions/{subscription_id}/history",
        }[what]
        text = json.dumps(self._get(path), indent=2, ensure_ascii=False)
        cut = "" if len(text) <= SHOWN else f"\n… {len(text) - SHOWN} more characters"
        self.stage.screen.plain(f"GET /api{path}", text[:SHOWN] + cut)

    def _get(self, path: str) -> Any:
        answer = self.api.call("GET", path)
        if answer.status_code != HTTPStatus.OK:
            raise DemoError(f"GET {path} was answered with {answer.status_code}: {answer.text}")
        return answer.json()

    def _do(self, path: str, **request: Any) -> None:
        answer = self.api.call("PUT", path, **request)
        if answer.status_code != HTTPStatus.NO_CONTENT:
            raise DemoError(f"PUT {path} was answered with {answer.status_code}: {answer.text}")
