"""From resolved requests to what will be done: selection, parts, pools, estimate, page. No torch, no Ray."""

from wanray.plan.build import Selection, WritePart, select_requests
from wanray.plan.estimate import make_estimate
from wanray.plan.files import plan_json, store_plan
from wanray.plan.model import Counts, Plan, PoolPlan, ShapeGroup
from wanray.plan.pools import decode_pool
from wanray.plan.recorder import Recorder
from wanray.plan.work import Work

__all__ = [
    "Counts",
    "Plan",
    "PoolPlan",
    "Recorder",
    "Selection",
    "ShapeGroup",
    "Work",
    "WritePart",
    "decode_pool",
    "make_estimate",
    "plan_json",
    "select_requests",
    "store_plan",
]
