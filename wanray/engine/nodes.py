"""A look at every node of a cluster: a task pinned to each examines it; one that is sick holds up nobody."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wanray.config import RayConfig
from wanray.engine.cluster import connect
from wanray.engine.deaths import last_line
from wanray.engine.examine import Answer, Question, examine
from wanray.storage import Store

CLOCK_TIMEOUT_S = 20.0
NUM_CLOCK_READINGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeReport:
    """One node, as it says itself (`answer`) and as it looks from the driver."""

    name: str
    id: str
    resources: dict[str, float]
    labels: dict[str, str]
    answer: Answer | None = None
    trouble: str = ""
    """Why there is no answer."""
    clock_ahead_s: float | None = None
    """Of the driver's clock, between `clock_within_s` less and more."""
    clock_within_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    """What `diagnosis` makes of it."""


def look_at_nodes(
    address: str, output_url: str | None, checkpoint: str | None, timeout_s: float
) -> list[NodeReport]:
    """Reports of all living nodes, the driver's first.

    Raises:
        ConfigError, EngineError: no cluster at `address`.
        StorageError: the driver cannot write to the output.
    """
    with connect(RayConfig(address=address), []) as cluster:
        question = Question(output_url=output_url, checkpoint=checkpoint, marker=f"work/doctor-{uuid4().hex}")
        nodes = sorted(
            (node for node in ray.nodes() if node["Alive"]),
            key=lambda node: (node["NodeID"] != cluster.driver_node, node["NodeName"]),
        )
        store = Store.open(output_url) if output_url else None
        if store is not None:
            store.write(question.marker, b"")
        try:
            return [_with_clock(report) for report in _ask_all(nodes, question, timeout_s)]
        finally:
            if store is not None:
                store.delete(question.marker)


def _ask_all(nodes: Sequence[dict[str, Any]], question: Question, timeout_s: float) -> list[NodeReport]:
    asked = [_examine.options(**_only_on(node["NodeID"])).remote(question) for node in nodes]
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=timeout_s)
    reports = []
    for node, ref in zip(nodes, asked, strict=True):
        report = NodeReport(
            name=node["NodeName"], id=node["NodeID"], resources=node["Resources"], labels=node["Labels"]
        )
        if ref not in ready:
            ray.cancel(ref, force=True)
            reports.append(replace(report, trouble=f"gave no answer within {timeout_s:.0f} s"))
            continue
        try:
            reports.append(replace(report, answer=ray.get(ref)))
        except (RayError, ImportError, AttributeError) as error:  # the latter: other code of ours there
            reports.append(replace(report, trouble=last_line(error)))
    return reports


def _with_clock(report: NodeReport) -> NodeReport:
    """Compare clocks: the shortest of a few round trips bounds the error."""
    if report.answer is None:
        return report
    readings = []
    for _ in range(NUM_CLOCK_READINGS):
        sent_s = time.time()
        try:
            there_s = ray.get(_now.options(**_only_on(report.id)).remote(), timeout=CLOCK_TIMEOUT_S)
        except RayError:
            continue
        back_s = time.time()
        readings.append(((back_s - sent_s) / 2, there_s - (sent_s + back_s) / 2))
    if not readings:
        return report
    within_s, ahead_s = min(readings)
    return replace(report, clock_ahead_s=ahead_s, clock_within_s=within_s)


def _only_on(node: str) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


@ray.remote(num_cpus=0, max_retries=0)
def _examine(question: Question) -> Answer:
    return examine(question)


@ray.remote(num_cpus=0, max_retries=0)
def _now() -> float:
    return time.time()
