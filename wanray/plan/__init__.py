"""From resolved requests to what will be done: selection, parts, pools, estimate, page. No torch, no Ray."""

from wanray.plan.build import Selection, WritePart, select_requests
from wanray.plan.model import Counts, Plan, PoolPlan, ShapeGroup
from wanray.plan.pools import choose_pools, decode_pool

__all__ = [
    "Counts",
    "Plan",
    "PoolPlan",
    "Selection",
    "ShapeGroup",
    "WritePart",
    "choose_pools",
    "decode_pool",
    "select_requests",
]
