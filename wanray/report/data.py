"""Everything that a page shows, as one JSON-able dict. Looks at the store; knows no HTML."""

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from wanray.live import ENDED, FINISHED, RUNNING
from wanray.report.estimate import compare
from wanray.report.failures import group_failures
from wanray.report.gallery import Gallery, add_clips, add_failures, newest_keys
from wanray.report.history import History, fold
from wanray.report.links import Links
from wanray.report.plots import latency_json, throughput_json, timeline_json
from wanray.report.reading import read_object
from wanray.sinks.cache import cache_url
from wanray.sinks.events import read_events
from wanray.sinks.ledger import Ledger
from wanray.storage import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What of a run is shown."""

    whole_output: bool = False
    """Clips and failures of all runs, not only of this one."""
    limit: int = 10_000
    """Clips, the newest; and failure records that are looked at."""
    is_running: bool = False
    """Whether somebody knows that the run goes on; a run that did not finish ended otherwise."""


def collect(store: Store, run: str, links: Links, scope: Scope) -> dict[str, Any]:
    """The data of the page of one run.

    Raises:
        StorageError: the store cannot be reached.
    """
    ledger = Ledger(store)
    history = fold(read_events(store, run), scope.limit)
    plan = read_object(store, f"runs/{run}/plan.json")
    num_committed = history.events["committed"]
    gallery, keys = Gallery(), list(history.clips)
    if scope.whole_output:
        keys, num_committed = newest_keys(ledger, scope.limit)
    gallery.num_left_out = num_committed - len(keys)
    add_clips(gallery, ledger, keys, history.clips, links)
    add_failures(gallery, ledger, None if scope.whole_output else run, scope.limit)
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "url": store.url,
        "base": links.base,
        "whole_output": scope.whole_output,
        "run": _run(run, history, scope) | _about(plan, gallery) | _commands(store, run),
        "estimate": compare(plan, history),
        "timeline": timeline_json(history),
        "throughput": throughput_json(history),
        "latencies": latency_json(history),
        "failures": group_failures(gallery.clips),
        "settings": gallery.settings,
        "clips": gallery.clips,
        "num_left_out": gallery.num_left_out,
        "num_unreadable": gallery.num_unreadable,
    }


def _run(run: str, history: History, scope: Scope) -> dict[str, Any]:
    ending, events = history.ending or {}, history.events
    unfinished = RUNNING if scope.is_running else ENDED
    return {
        "name": run,
        "state": FINISHED if ending else unfinished,
        "exit_code": ending.get("exit_code"),
        "error": ending.get("error", ""),
        "start_s": history.start_s,
        "end_s": history.end_s,
        "elapsed_s": round(history.elapsed_s, 3),
        "num_starts": history.num_starts,
        "counts": history.counts,
        "committed": events["committed"],
        "failed": events["failed"] + history.counts.get("invalid", 0),
        "put_off": events["put_off"],
        "skipped": events["skipped"],
    }


def _about(plan: dict[str, Any] | None, gallery: Gallery) -> dict[str, Any]:
    """Model, numerics and placement: of the plan, or else of the newest clip."""
    described = [item for item in gallery.settings if "model" in item]
    source = plan or (described[0] if described else {})
    return {name: source.get(name) for name in ("model", "numerics", "placement")}


def _commands(store: Store, run: str) -> dict[str, str]:
    """Shell commands that go on with a run, and that render one of its clips: with `{config}`, `{key}`.

    A committed clip is rendered again only into another output.
    """
    config = _read_config(store, run)
    is_extended = (config.get("extension") or {}).get("method", "none") != "none"
    cache = cache_url((config.get("cache") or {}).get("url"), store.url)
    again = f" {shlex.quote(f'cache.url={cache}')}" if is_extended else ""
    fetched = "aws s3 cp {config} config.yaml && wanray render config.yaml"
    render = fetched if store.url.startswith("s3") else "wanray render {config}"
    return {
        "command": render,
        "retry": f"{render} --only {{key}}",
        "reproduce": f"{render} --only {{key}} output.url=reproduced{again}",
    }


def _read_config(store: Store, run: str) -> dict[str, Any]:
    try:
        config = yaml.safe_load(store.read(f"runs/{run}/config.yaml"))
    except (FileNotFoundError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}
