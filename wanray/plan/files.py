"""The plan as a file: what machines read of it, and where a run keeps it."""

import json
from dataclasses import asdict
from typing import Any

from wanray.plan.model import Plan
from wanray.storage import Store


def plan_json(plan: Plan) -> dict[str, Any]:
    """All values of the plan, with the totals at the top."""
    estimate = plan.estimate
    totals = {name: getattr(estimate, name) for name in ("start_s", "cost", "currency", "storage_bytes")}
    return asdict(plan) | {"estimate_s": plan.estimate_s, "gpu_hours": plan.gpu_hours} | totals


def store_plan(store: Store, plan: Plan) -> None:
    """Keep it beside the run's other files."""
    content = json.dumps(plan_json(plan), indent=1, ensure_ascii=False)
    store.write(f"runs/{plan.run}/plan.json", content.encode())
