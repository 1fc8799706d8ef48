"""The numbers behind the plots of a page, small enough to be embedded. Draws nothing."""

from typing import Any

from wanray.report.history import History, WorkerHistory

MAX_WORKERS = 64
"""Rows of a pool in the timeline."""


def timeline_json(history: History) -> dict[str, Any]:
    """Per pool and worker the share of each stretch that it was busy, in percent; single spans where few.

    Times are seconds since the start.
    """
    bin_s = max(
        (worker.busy.width_s for pool in history.pools.values() for worker in pool.values()), default=1.0
    )
    names = list(history.pools)
    return {
        "start_s": history.start_s,
        "seconds": round(history.end_s - history.start_s, 3),
        "bin_s": bin_s,
        "num_spans": history.num_spans,
        "pools": [
            {
                "name": name,
                "num_workers": len(workers),
                "workers": [
                    {"worker": number, "busy": _percent(workers[number], bin_s)}
                    for number in sorted(workers)[:MAX_WORKERS]
                ],
            }
            for name, workers in history.pools.items()
        ],
        "spans": [
            [
                names.index(span.pool),
                span.worker,
                span.lane,
                round(span.start_s - history.start_s, 3),
                round(span.end_s - span.start_s, 3),
                span.outcome,
                span.key,
            ]
            for span in history.spans
        ],
        "gangs": [
            [
                names.index(gang.pool),
                gang.worker,
                round(gang.ts - history.start_s, 3),
                gang.state,
                gang.detail,
            ]
            for gang in history.gangs
            if gang.state != "idle"
        ],
    }


def throughput_json(history: History) -> dict[str, Any]:
    """Clips that were committed in each stretch of time since the start."""
    return {
        "bin_s": history.commits.width_s,
        "clips": [round(value) for value in history.commits.values(history.commits.width_s)],
    }


def latency_json(history: History) -> list[dict[str, Any]]:
    """Per stage, and for the whole way of a clip: count, quantiles and histogram, in seconds."""
    return [
        {
            "stage": stage,
            "count": distribution.count,
            "mean_s": distribution.sum_s / distribution.count,
            "p50_s": distribution.quantile_s(0.5),
            "p90_s": distribution.quantile_s(0.9),
            "p99_s": distribution.quantile_s(0.99),
            "max_s": distribution.max_s,
            "buckets": [[round(low_s, 5), number] for low_s, number in distribution.buckets()],
        }
        for stage, distribution in history.latencies.items()
    ]


def _percent(worker: WorkerHistory, bin_s: float) -> list[int]:
    return [round(100 * value / bin_s) for value in worker.busy.values(bin_s)]
