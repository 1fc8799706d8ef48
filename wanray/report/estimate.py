"""What the plan promised beside what came of it. Knows `plan.json`, which outputs of older versions lack."""

from typing import Any

from wanray.report.history import History


def compare(plan: dict[str, Any] | None, history: History) -> dict[str, Any]:
    """Seconds, GPU-hours and cost of the run, and seconds of each pool: estimated and real, None if unknown.

    A pool's seconds are the mean of its workers'. GPU-hours are those of all GPUs that the run took, from its
    start to its end.
    """
    plan = plan or {}
    estimate = plan.get("estimate") or {}
    num_gpus, cost = history.num_gpus, estimate.get("cost")
    gpu_hours = None if num_gpus is None else num_gpus * history.elapsed_s / 3600
    per_hour = cost / plan["gpu_hours"] if cost and plan.get("gpu_hours") else None
    start_s = None if history.first_s is None else history.first_s - history.start_s
    return {
        "start_s": _both(estimate.get("start_s"), start_s),
        "work_s": _both(plan.get("estimate_s"), None if start_s is None else history.elapsed_s - start_s),
        "gpu_hours": _both(plan.get("gpu_hours"), gpu_hours),
        "cost": _both(cost, gpu_hours * per_hour if gpu_hours and per_hour else None),
        "currency": estimate.get("currency") or "",
        "pools": _pools({pool["name"]: pool for pool in plan.get("pools", [])}, history),
    }


def _both(estimate: float | None, real: float | None) -> dict[str, float | None]:
    """The planner writes 0 where it does not reach."""
    return {"estimate": estimate or None, "real": real}


def _pools(planned: dict[str, dict[str, Any]], history: History) -> list[dict[str, Any]]:
    names = dict.fromkeys([*planned, *history.pools])
    return [_pool(name, planned.get(name, {}), history) for name in names]


def _pool(name: str, planned: dict[str, Any], history: History) -> dict[str, Any]:
    workers = history.pools.get(name, {}).values()
    num_workers = max(len(workers), planned.get("num_workers", 1))
    real_s = sum(worker.busy_s for worker in workers) / num_workers
    outcomes = ("done", "failed", "lost")
    return {
        "name": name,
        "num_workers": num_workers,
        "busy_s": _both(planned.get("busy_s"), real_s),
        "busy_share": real_s / history.elapsed_s if history.elapsed_s else 0.0,
        "num_rebuilds": sum(worker.num_rebuilds for worker in workers),
    } | {outcome: sum(worker.outcomes[outcome] for worker in workers) for outcome in outcomes}
