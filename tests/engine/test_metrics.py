"""A real Prometheus scrapes a render: counters are what the ledger has; the dashboard has what to show."""

import json
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from heads import free_ports, ray_head
from runs import SMALL, events, metas, start, wait_until, write_config

from wanray.live.metrics import METRICS

DEPLOY = Path(__file__).parents[2] / "deploy"
GOOD = 10
STEPS = 300
"""Enough that the run goes on for longer than the ten seconds after which Ray tells its agent of metrics."""
RUN = "metered"
SCRAPE = """
global: {{scrape_interval: 5s, scrape_timeout: 5s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: ray, static_configs: [{{targets: ["{target}"]}}]}}]
"""

UNTOUCHED = ("wanray_skipped_total", "wanray_gang_rebuilds_total")
"""Ray tells of a counter from its first increment on; here nothing was left to others or rebuilt."""

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus"),
]


class Prometheus:
    """A running server, asked by HTTP."""

    def __init__(self, url):
        self.url = url

    def query(self, expression):
        """[(labels, value)] of an instant query."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return [(item["metric"], float(item["value"][1])) for item in answer["data"]["result"]]

    def family(self, name):
        """The newest of one metric that our run tells; a scrape that a busy machine missed hides nothing."""
        return self.query(f'last_over_time(ray_{name}{{run="{RUN}"}}[20m])')

    def values(self, name, label):
        return {labels[label]: value for labels, value in self.family(name)}

    def one(self, name):
        found = self.family(name)
        return found[0][1] if found else None


@pytest.fixture(scope="module")
def head():
    """A cluster of its own: an agent that has told of many runs answers slowly, scrape after scrape."""
    with ray_head(num_cpus=8) as started, pytest.MonkeyPatch.context() as patch:
        for name, value in started.environment.items():
            patch.setenv(name, value)
        yield started


@pytest.fixture(scope="module")
def prometheus(head, tmp_path_factory):
    folder, (port,) = tmp_path_factory.mktemp("prometheus"), free_ports(1)
    config = folder / "prometheus.yaml"
    config.write_text(SCRAPE.format(rules=DEPLOY / "prometheus/rules.yaml", target=head.metrics))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/-/ready", process)
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(url, process):
    """Return when the server answers."""
    deadline_s = time.monotonic() + 60
    while True:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.ConnectionError:
            assert process.poll() is None, "prometheus has ended"
        assert time.monotonic() < deadline_s, "prometheus does not answer"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def rendered(prometheus, head, tiny, tmp_path_factory):
    """The output of a run that Prometheus saw, and how many commits it saw while the run went on."""
    folder = tmp_path_factory.mktemp("rendered")
    rows = [{"id": f"r{i}", "prompt": f"a cat {i}", "seed": i, **SMALL, "steps": STEPS} for i in range(GOOD)]
    rows += [{"id": "odd", "prompt": "a dog", "seed": 1, **SMALL, "width": 63}]
    rows += [{"id": "dup", "prompt": "a cat 0", "seed": 0, **SMALL, "steps": STEPS}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    keys = {"ray.address": head.address, "run": RUN}
    config = write_config(folder, tiny("t2v-a14b"), folder / "m.parquet", **keys)
    with start(config) as process:
        wait_until(lambda: (prometheus.one("wanray_clips_total") or 0) > 0, process, 400)
        during = prometheus.one("wanray_clips_total")
        assert process.wait(timeout=300) == 2
    deadline_s = time.monotonic() + 240
    while not has_ended(prometheus) and time.monotonic() < deadline_s:
        time.sleep(0.5)
    time.sleep(12)  # two scrapes of what came with the last of them
    return folder / "out", during


def has_ended(prometheus):
    """Whether the last news of the run have come: the tests say what is wrong where they never do."""
    done = prometheus.values("wanray_pool_requests_total", "pool")
    committed, left_s = prometheus.one("wanray_clips_total"), prometheus.one("wanray_eta_seconds")
    return (committed, left_s, done.get("decode")) == (GOOD, 0.0, GOOD)


def test_a_run_is_seen_while_it_goes_on(rendered):
    assert 0 < rendered[1] <= GOOD


def test_counters_are_what_the_ledger_has(rendered, prometheus):
    clips = list(metas(rendered[0]).values())
    failures = [json.loads(path.read_text()) for path in rendered[0].glob("failures/*.json")]
    assert len(clips) == GOOD
    assert prometheus.one("wanray_requests_total") == GOOD
    assert prometheus.one("wanray_clips_total") == GOOD
    assert prometheus.values("wanray_failures_total", "class") == Counter(item["class"] for item in failures)
    assert prometheus.one("wanray_video_bytes_total") == sum(clip["video"]["bytes"] for clip in clips)
    assert prometheus.one("wanray_steps_total") == sum(clip["request"]["steps"] for clip in clips)
    seconds = prometheus.values("wanray_stage_seconds_total", "stage")
    assert set(seconds) >= {"encode", "denoise_high", "denoise_low", "decode"}
    told = [event["timings_s"] for event in events(rendered[0], "committed")]
    for stage, value in seconds.items():
        assert value == pytest.approx(sum(timings_s[stage] for timings_s in told), abs=0.01), stage
    ((labels, _),) = prometheus.family("wanray_clips_total")
    assert labels["model"] == "t2v-a14b"


def test_pools_are_told_apart_and_fall_silent_at_the_end(rendered, prometheus):
    done = prometheus.values("wanray_pool_requests_total", "pool")
    assert done == dict.fromkeys(("encode", "denoise_high", "denoise_low", "decode"), GOOD)
    busy = prometheus.values("wanray_gang_busy_seconds_total", "pool")
    up = prometheus.values("wanray_gang_up_seconds_total", "pool")
    assert all(0 < busy[pool] <= up[pool] for pool in done)
    for name in (
        "wanray_pool_active_requests",
        "wanray_pool_queued_requests",
        "wanray_gangs",
        "wanray_eta_seconds",
    ):
        assert {value for _, value in prometheus.family(name)} == {0.0}, name


def test_every_metric_of_the_table_is_there(rendered, prometheus):
    for metric in METRICS:
        assert prometheus.family(metric.name) or metric.name in UNTOUCHED, metric.name


def test_every_expression_of_the_dashboard_has_a_result(rendered, prometheus):
    dashboard = json.loads((DEPLOY / "grafana/wanray.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 20
    deadline_s = time.monotonic() + 120
    for expression in expressions:
        asked = expression.replace("$run", RUN).replace("$__rate_interval", "20m")
        while not (found := prometheus.query(asked)) and time.monotonic() < deadline_s:
            if any(name in expression for name in UNTOUCHED):
                break
            time.sleep(1)  # a scrape that was missed hides what it did not see until the next
        assert found or any(name in expression for name in UNTOUCHED), expression
    (variable,) = [item for item in dashboard["templating"]["list"] if item["name"] == "run"]
    assert variable["query"] == "label_values(ray_wanray_requests_total, run)"


def test_the_dashboard_shows_every_metric():
    text = (DEPLOY / "grafana/wanray.json").read_text()
    assert [metric.name for metric in METRICS if f"ray_{metric.name}" not in text] == []


def test_the_alerts_are_loaded_and_evaluated(rendered, prometheus):
    groups = requests.get(f"{prometheus.url}/api/v1/rules", timeout=10).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, rules
    assert len(rules) == 4


def test_what_prometheus_is_told_of_ray_is_valid():
    for kind, name in (("rules", "rules.yaml"), ("config", "prometheus.yaml")):
        done = subprocess.run(
            ["promtool", "check", kind, str(DEPLOY / "prometheus" / name)], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
