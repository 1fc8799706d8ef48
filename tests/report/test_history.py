"""What events tell of a run."""

from typing import Any

import pytest

from wanray.report.history import MAX_SPANS, WHOLE, History, fold
from wanray.report.spans import Span, Spans
from wanray.report.tallies import MAX_BINS, Distribution, TimeBins


def entry(event: str, ts: float, **fields: Any) -> dict[str, Any]:
    return {"event": event, "ts": ts, **fields}


def dispatched(
    ts: float, key: str, worker: int = 0, pool: str = "denoise", attempt: int = 1
) -> dict[str, Any]:
    return entry("dispatched", ts, key=key, pool=pool, worker=worker, attempt=attempt)


def released(
    ts: float, key: str, worker: int = 0, outcome: str = "done", pool: str = "denoise"
) -> dict[str, Any]:
    return entry("released", ts, key=key, pool=pool, worker=worker, outcome=outcome)


def committed(ts: float, key: str, **timings_s: float) -> dict[str, Any]:
    return entry("committed", ts, key=key, video=f"{key}.mp4", timings_s=timings_s)


def started(ts: float = 0.0, **counts: int) -> dict[str, Any]:
    return entry("run_started", ts, run="r", counts=counts)


def gang(ts: float, state: str, worker: int = 0, detail: str = "why") -> dict[str, Any]:
    return entry("gang", ts, pool="denoise", worker=worker, state=state, detail=detail)


def spans_of(*entries: dict[str, Any]) -> list[Span]:
    spans = Spans()
    return [span for item in entries for span in spans.add(item)] + list(spans.rest())


def history(*entries: dict[str, Any], max_clips: int = 100) -> History:
    return fold(entries, max_clips)


def test_a_worker_with_seats_has_a_lane_for_each() -> None:
    spans = spans_of(
        dispatched(0, "a"),
        dispatched(1, "b"),
        released(2, "a"),
        dispatched(3, "c"),
        released(5, "b"),
        released(6, "c"),
    )
    assert [(span.key, span.lane, span.start_s, span.end_s) for span in spans] == [
        ("a", 0, 0, 2),
        ("b", 1, 1, 5),
        ("c", 0, 3, 6),
    ]
    assert [span.busy_since_s for span in spans] == [None, None, 0]


def test_spans_of_a_lane_do_not_overlap_where_clocks_go_back() -> None:
    spans = spans_of(dispatched(0, "a"), released(2.001, "a"), dispatched(2.0, "b"), released(3, "b"))
    assert spans[1].start_s == spans[0].end_s


def test_what_no_event_ends() -> None:
    spans = spans_of(
        dispatched(0, "a"),
        dispatched(0, "b", worker=1),
        gang(4, "rebuilding"),
        gang(9, "idle"),
        entry("put_off", 10, key="x"),
    )
    assert [(span.key, span.outcome, span.end_s) for span in spans] == [
        ("a", "lost", 9),
        ("b", "unfinished", 10),
    ]


def test_a_driver_that_was_killed_leaves_nothing_open_to_the_next() -> None:
    told = history(
        started(0, left=2),
        dispatched(1, "a"),
        committed(4, "x", denoise=3.0),
        started(1000, left=1),
        dispatched(1001, "a"),
        released(1005, "a"),
        committed(1006, "a", denoise=4.0),
        entry("run_finished", 1007, exit_code=0),
    )
    assert [(span.key, span.outcome, span.end_s) for span in told.spans] == [
        ("a", "unfinished", 4),
        ("a", "done", 1005),
    ]
    assert (told.num_starts, told.elapsed_s, told.end_s) == (2, 11, 1007)
    assert told.counts == {"left": 1}
    assert told.clips["a"].first_s == 1001
    assert told.clips["x"].first_s is None
    assert told.pools["denoise"][0].busy_s == 3 + 4


def test_a_run_that_goes_on_has_no_ending() -> None:
    again = history(started(), entry("run_finished", 5, exit_code=3), started(10))
    assert again.ending is None
    assert history(started(), entry("run_finished", 5, exit_code=3)).ending == entry(
        "run_finished", 5, exit_code=3
    )
    assert history().elapsed_s == 0


def test_sums_of_workers_and_stages() -> None:
    told = history(
        started(),
        dispatched(1, "a", pool="encode"),
        released(2, "a", pool="encode"),
        dispatched(2, "a"),
        released(6, "a", outcome="lost"),
        gang(6, "rebuilding"),
        dispatched(7, "a", worker=1, attempt=2),
        released(9, "a", worker=1),
        gang(9, "idle"),
        committed(10, "a", encode=1.0, denoise=2.0),
        entry("failed", 11, key="b", message="NaN"),
    )
    assert list(told.pools) == ["encode", "denoise"]
    first, second = told.pools["denoise"][0], told.pools["denoise"][1]
    assert (first.busy_s, dict(first.outcomes), first.num_rebuilds) == (4, {"lost": 1}, 1)
    assert (second.busy_s, dict(second.outcomes)) == (2, {"done": 1})
    assert told.events["failed"] == 1
    assert [item.state for item in told.gangs] == ["rebuilding", "idle"]
    assert told.latencies[WHOLE].sum_s == 9
    assert set(told.latencies) == {"encode", "denoise", WHOLE}
    assert told.first_s == 1


def test_seats_that_work_at_once_are_busy_once() -> None:
    told = history(
        started(),
        dispatched(0, "a"),
        dispatched(1, "b"),
        released(4, "b"),
        released(5, "a"),
        dispatched(9, "c"),
    )
    worker = told.pools["denoise"][0]
    assert worker.busy_s == 5
    assert sum(worker.busy.values(worker.busy.width_s)) == pytest.approx(5)


def test_long_runs_keep_sums_and_the_newest_clips() -> None:
    def events() -> Any:
        yield started(0.0, left=20_000)
        for number in range(20_000):
            yield dispatched(number, f"k{number}")
            yield released(number + 0.5, f"k{number}")
            yield committed(number + 0.75, f"k{number}", denoise=0.5)

    told = fold(events(), 10)
    assert told.num_spans == 20_000 > MAX_SPANS
    assert told.spans == ()
    assert list(told.clips) == [f"k{number}" for number in range(19_990, 20_000)]
    busy = told.pools["denoise"][0].busy
    values = busy.values(busy.width_s)
    assert len(values) <= MAX_BINS
    assert sum(values) == pytest.approx(10_000)
    assert values[3] == pytest.approx(busy.width_s / 2)
    assert sum(told.commits.values(told.commits.width_s)) == 20_000
    assert told.latencies["denoise"].quantile_s(0.5) == pytest.approx(0.5, rel=0.05)


def test_stretches_of_time_double() -> None:
    bins = TimeBins(100.0)
    bins.count(99.0)
    bins.cover(100.5, 103.25)
    assert bins.values(1.0) == [1.5, 1, 1, 0.25]
    bins.count(100.0 + 10 * MAX_BINS)
    assert bins.width_s == 16.0
    assert sum(bins.values(32.0)) == 1 + 2.75 + 1


def test_quantiles_are_right_to_within_their_bucket() -> None:
    distribution = Distribution(number / 100 for number in range(1, 1001))
    for share in (0.1, 0.5, 0.9, 0.99):
        assert distribution.quantile_s(share) == pytest.approx(10 * share, rel=0.05)
    assert distribution.max_s == 10
    assert sum(number for _, number in distribution.buckets()) == 1000
    assert Distribution([0.0]).quantile_s(0.5) == 0
    assert Distribution().quantile_s(0.5) == 0
