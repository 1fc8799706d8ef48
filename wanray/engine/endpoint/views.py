"""What the API says of a request, as JSON."""

import json
from dataclasses import dataclass, field
from typing import Any

from wanray.engine.endpoint.desk import Status
from wanray.engine.tally import Progress
from wanray.records import Record


@dataclass(frozen=True, slots=True)
class Answer:
    """To an HTTP request: status code, JSON body and headers."""

    code: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def error(code: int, message: str, retry_after_s: int | None = None, **more: Any) -> Answer:
    """Why something was not done, and after how long to ask again."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Answer(code, {"error": {"code": code, "message": message, **more}}, headers)


def open_video(record: Record, status: Status, progress: Progress | None) -> dict[str, Any]:
    """Of a request that has not ended, or was cancelled."""
    view = _view(record.key, status, list(record.ids), json.loads(record.request.to_json()))
    if status is Status.IN_PROGRESS and progress is not None:
        view |= {"stage": progress.pool, "step": progress.step, "num_steps": progress.num_steps}
        view["progress"] = min(99, 100 * progress.step // max(1, record.request.steps))
    return view


def committed_video(meta: dict[str, Any]) -> dict[str, Any]:
    """Of a request whose clip is committed."""
    view = _view(meta["key"], Status.COMPLETED, meta["ids"], meta["request"])
    told = ("video", "timings_s", "attempts", "created_at")
    return view | {"progress": 100} | {name: meta[name] for name in told}


def failed_video(failure: dict[str, Any]) -> dict[str, Any]:
    """Of a request that could not be rendered; `failure` is its record in the ledger."""
    view = _view(failure["key"], Status.FAILED, failure["ids"], failure["request"])
    told = ("stage", "class", "cause", "message", "attempts")
    return view | {"error": {name: failure[name] for name in told}, "created_at": failure["created_at"]}


def _view(key: str, status: Status, ids: list[str], request: dict[str, Any] | None) -> dict[str, Any]:
    links = {"self": f"/v1/videos/{key}", "content": f"/v1/videos/{key}/content"}
    return {
        "object": "video",
        "id": key,
        "status": status.value,
        "progress": 0,
        "ids": ids,
        "request": request,
        "links": links,
    }
