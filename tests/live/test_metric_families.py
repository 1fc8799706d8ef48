"""The table of metrics: names by the conventions of Prometheus, values from a snapshot."""

import re

from test_snapshot import SNAPSHOT

from wanray.live.metrics import METRICS, RUN_LABELS, metrics_table
from wanray.live.snapshot import Snapshot

VALUES = {metric.name: metric.values(SNAPSHOT) for metric in METRICS}


def test_names_follow_the_conventions() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"wanray_[a-z_]+", metric.name)
        assert metric.help.endswith(".")
        assert not set(metric.labels) & set(RUN_LABELS)
        words = metric.name.removesuffix("_total").split("_")
        assert not {"ms", "minutes", "hours", "kb", "percent"} & set(words), "base units only"


def test_every_family_has_values_with_its_labels() -> None:
    for metric in METRICS:
        assert VALUES[metric.name], metric.name
        assert all(len(labels) == len(metric.labels) for labels in VALUES[metric.name]), metric.name


def test_values_are_those_of_the_run() -> None:
    assert VALUES["wanray_clips_total"] == {(): 4}
    assert VALUES["wanray_failures_total"] == {("input",): 2, ("model",): 1}
    assert VALUES["wanray_stage_seconds_total"] == {("denoise",): 12.5}
    assert VALUES["wanray_pool_busy_ratio"] == {("denoise",): 0.75}
    assert VALUES["wanray_gangs"]["denoise", "rebuilding"] == 1
    assert VALUES["wanray_gangs"]["denoise", "lost"] == 0, "a state that ended falls back to zero"


def test_what_is_not_known_is_left_out() -> None:
    begun = Snapshot(run="r", total=3)
    assert {metric.name for metric in METRICS if not metric.values(begun)} >= {"wanray_eta_seconds"}


def test_the_table_has_a_row_per_metric() -> None:
    rows = metrics_table().splitlines()[2:]
    assert len(rows) == len(METRICS)
    assert all(row.startswith(f"| `ray_{metric.name}` |") for row, metric in zip(rows, METRICS, strict=True))
