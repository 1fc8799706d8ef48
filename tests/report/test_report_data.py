"""What a page is told of an output, and the command that asks for it."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_outputs import START_S, RunWriter, encoded, key_of, request, write_many

from wanray.errors import ConfigError
from wanray.report import Scope, write_page, write_report
from wanray.report.data import collect
from wanray.report.failures import shape_of
from wanray.report.links import make_links
from wanray.report.page import make_page, to_script_json
from wanray.sinks.ledger import Ledger
from wanray.storage import Store


def collected(store: Store, run: str, **scope: Any) -> dict[str, Any]:
    return collect(store, run, make_links(store, None, None), Scope(**scope))


def embedded(page: Path | str) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', Path(page).read_text(), re.S
    )
    assert found
    return json.loads(found[1])


def test_a_real_run(rendered_run: Path) -> None:
    data = collected(Store.open(str(rendered_run / "out")), "first")
    run = data["run"]
    assert (run["name"], run["state"], run["exit_code"]) == ("first", "finished", 2)
    assert (run["committed"], run["failed"], run["counts"]["invalid"]) == (2, 1, 1)
    assert run["model"]["name"] == "t2v-1.3b"
    assert run["numerics"]["dtype"] == "float32"
    assert [pool["name"] for pool in data["estimate"]["pools"]] == ["encode", "denoise", "decode"]
    assert [pool["done"] for pool in data["estimate"]["pools"]] == [2, 2, 2]
    assert {item["stage"] for item in data["latencies"]} >= {"encode", "denoise", "decode", "whole"}
    assert sum(data["throughput"]["clips"]) == 2
    assert data["timeline"]["num_spans"] == len(data["timeline"]["spans"]) == 6
    clips = [clip for clip in data["clips"] if clip["status"] == "committed"]
    assert sorted(clip["seed"] for clip in clips) == ["0", "1"]
    assert {clip["settings"] for clip in clips} == {clips[0]["settings"]}, "they differ in their seed only"
    assert data["settings"][clips[0]["settings"]]["steps"] == 2
    assert clips[0]["tags"] == {"scene": "indoors"}
    assert all((rendered_run / "out" / clip["video"]).is_file() for clip in clips)
    (group,) = data["failures"]
    assert (group["class"], group["stage"], group["count"]) == ("input", "plan", 1)


def test_the_command_that_a_clip_shows_renders_it_again(
    rendered_run: Path, tmp_path: Path, run_cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = collected(Store.open(str(rendered_run / "out")), "first")
    clip = data["clips"][0]
    text = data["run"]["reproduce"]
    text = text.replace("{config}", f"{data['url']}/runs/first/config.yaml").replace("{key}", clip["key"])
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli(*shlex.split(text)[1:])
    assert code in (0, 2), err
    again = tmp_path / "reproduced" / clip["video"]
    assert again.read_bytes() == (rendered_run / "out" / clip["video"]).read_bytes()
    assert len(list(tmp_path.glob("reproduced/clips/*/*"))) == 1


def test_an_extended_prompt_is_taken_from_the_cache_of_the_run(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write("runs/r/config.yaml", b"extension: {method: chat}")
    assert collected(store, "r")["run"]["reproduce"].endswith(f"cache.url={tmp_path}/cache")
    store.write("runs/r/config.yaml", b"extension: {method: chat}\ncache: {url: 's3://b/my cache'}")
    assert collected(store, "r")["run"]["reproduce"].endswith("'cache.url=s3://b/my cache'")


def test_the_command_writes_page_and_trace(rendered_run: Path, tmp_path: Path, run_cli: Any) -> None:
    shutil.copytree(rendered_run / "out", tmp_path / "out")
    code, out, _ = run_cli("report", tmp_path / "out", "--trace", tmp_path / "trace.json.gz")
    assert code == 0
    page = tmp_path / "out/runs/first/report.html"
    assert f"report   {page}" in out
    assert "run first finished: 2 clips committed, 1 failed" in out
    assert "(6 spans;" in out
    assert len(embedded(page)["clips"]) == 3
    assert (tmp_path / "trace.json.gz").stat().st_size > 100


def test_a_page_elsewhere_finds_its_clips(
    night: tuple[Path, dict[str, str]], tmp_path: Path, run_cli: Any
) -> None:
    code, _, err = run_cli("report", night[0], "-o", tmp_path / "my pages" / "page.html")
    assert code == 0, err
    data = embedded(tmp_path / "my pages" / "page.html")
    clip = next(clip for clip in data["clips"] if clip["status"] == "committed")
    assert (tmp_path / "my pages" / data["base"] / clip["video"]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "absent"], "--run absent is no run of"),
        (["--limit", "0"], "--limit must be at least 1, got 0"),
        (["--presign", "soon"], "--presign must be a time of at most 7d such as 24h, got soon"),
        (["--presign", "8d"], "at most 7d"),
        (["--presign", "24h"], "has no presigned URLs: leave out --presign"),
    ],
)
def test_wrong_use(
    night: tuple[Path, dict[str, str]], run_cli: Any, arguments: list[str], message: str
) -> None:
    code, _, err = run_cli("report", night[0], *arguments)
    assert code == 1
    assert message in err


def test_an_output_without_runs(tmp_path: Path, run_cli: Any) -> None:
    (tmp_path / "runs").mkdir()
    code, _, err = run_cli("report", tmp_path)
    assert code == 1
    assert "has no runs yet" in err


def test_a_bucket_needs_presigned_links_from_elsewhere(s3_url: str, tmp_path: Path) -> None:
    store = Store.open(s3_url)
    with pytest.raises(ConfigError, match="needs --presign"):
        make_links(store, tmp_path / "page.html", None)


def test_a_run_that_goes_on_and_one_that_was_killed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    run = RunWriter(Ledger(store))
    run.start(left=5)
    run.commit("a", request("a cat"), encoded())
    run.events.emit("dispatched", ts=run.now_s, key=key_of("b"), pool="denoise", worker=0, attempt=1)
    run.events.flush()
    data = collected(store, "night", is_running=True)
    assert (data["run"]["state"], data["run"]["exit_code"], data["run"]["committed"]) == ("running", None, 1)
    assert collected(store, "night")["run"]["state"] == "ended without a word"
    assert data["run"]["start_s"] == START_S


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write("runs/r/config.yaml", b"")
    data = embedded(write_report(store, "r"))
    assert (data["clips"], data["failures"], data["latencies"]) == ([], [], [])
    assert data["run"]["elapsed_s"] == 0


def test_of_many_clips_the_newest_are_shown(tmp_path: Path) -> None:
    store, files = Store.open(str(tmp_path)), encoded()
    for name, start_s in (("older", START_S), ("newer", START_S + 5000)):
        run = RunWriter(Ledger(store), name, start_s)
        run.start(left=3)
        for number in range(3):
            run.commit(f"{name}-{number}", request(f"{name} {number}"), files)
        run.finish()
    data = collected(store, "newer", limit=2)
    assert [clip["prompt"] for clip in data["clips"]] == ["newer 2", "newer 1"]
    assert (data["num_left_out"], data["run"]["committed"]) == (1, 3)
    data = collected(store, "newer", limit=5, whole_output=True)
    assert sorted(clip["run"] for clip in data["clips"]) == ["newer"] * 3 + ["older"] * 2
    assert data["num_left_out"] == 1


def test_a_clip_that_is_damaged_or_gone_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.open(str(tmp_path))
    run = RunWriter(Ledger(store))
    run.start(left=3)
    keys = [run.commit(f"{number}", request(f"{number}"), encoded()) for number in range(4)]
    run.finish()
    store.write(f"clips/{keys[0][:2]}/{keys[0]}/meta.json", b'{"key": ')
    store.write(f"clips/{keys[1][:2]}/{keys[1]}/meta.json", b'{"video": 3}')
    store.delete(f"clips/{keys[2][:2]}/{keys[2]}/meta.json")
    data = collected(store, "night")
    assert ([clip["key"] for clip in data["clips"]], data["num_unreadable"]) == ([keys[3]], 3)
    assert keys[0] in caplog.text


def test_failures_are_grouped_by_the_shape_of_their_message(night: tuple[Path, dict[str, str]]) -> None:
    folder, keys = night
    groups = collected(Store.open(str(folder)), "night")["failures"]
    kinds = [(group["class"], group["cause"], group["count"]) for group in groups]
    assert kinds[0] == ("model", "error", 3), "the largest comes first"
    assert sorted(kinds[1:]) == [("infrastructure", "worker_died", 1), ("input", "error", 1)]
    assert sorted(groups[0]["keys"]) == sorted(keys[f"nan-{number}"] for number in range(3))
    assert shape_of('row 3 (id "a"): got 1.5') == shape_of('row 12 (id "b c"): got 7')
    assert shape_of("got NaN") != shape_of("got inf")


def test_estimate_against_reality(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    run = RunWriter(Ledger(store))
    run.start(left=1)
    run.events.emit("connected", ts=run.now_s, num_gpus=4)
    run.commit("a", request("a cat"), encoded())
    run.finish()
    pool = {"name": "denoise", "num_workers": 2, "world_size": 4, "experts": ["single"], "busy_s": 5.0}
    estimate = {"num_gpus": 8, "cost": 10.0, "currency": "EUR", "start_s": 1.0}
    plan = {"estimate_s": 20.0, "gpu_hours": 0.05, "pools": [pool], "estimate": estimate}
    store.write("runs/night/plan.json", json.dumps(plan).encode())
    told = collected(store, "night")["estimate"]
    assert told["start_s"] == {"estimate": 1.0, "real": 2.0}
    assert told["work_s"] == {"estimate": 20.0, "real": pytest.approx(4.75)}
    hours = 4 * 6.75 / 3600
    assert told["gpu_hours"] == {"estimate": 0.05, "real": pytest.approx(hours)}
    assert told["cost"] == {"estimate": 10.0, "real": pytest.approx(hours * 200)}
    denoise = told["pools"][0]
    assert (denoise["name"], denoise["num_workers"], denoise["busy_s"]) == (
        "denoise",
        2,
        {"estimate": 5.0, "real": 2.0},
    )
    assert [item["name"] for item in told["pools"]] == ["denoise", "encode", "decode"]


def test_numbers_that_browsers_cannot_hold_are_texts(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    run = RunWriter(Ledger(store))
    run.start(left=1)
    run.commit("a", request("a cat", seed=2**63 - 1), encoded(), tags={"n": 2**60, "list": [1, "b"]})
    run.finish()
    (clip,) = collected(store, "night")["clips"]
    assert clip["seed"] == "9223372036854775807"
    assert clip["tags"] == {"n": "1152921504606846976", "list": '[1, "b"]'}


def test_json_in_a_script_holds_no_markup() -> None:
    text = "</script><!--<script> & \u2028\u2029 \u05e9"
    safe = to_script_json({"text": text})
    assert not set("<>&\u2028\u2029") & set(safe)
    assert json.loads(safe) == {"text": text}


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = write_page(Store.open(str(tmp_path)), "a <b> & c", Scope())
    text = Path(page.uri).read_text()
    assert "<title>a &lt;b&gt; &amp; c - wanray report</title>" in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", make_page(page.data))
    assert text.count("</script>") == 2
    assert not re.search(r'(src|href)="', text)


def test_what_clips_share_is_told_once(tmp_path: Path) -> None:
    write_many(tmp_path, 300)
    data = embedded(write_report(Store.open(str(tmp_path)), "many"))
    assert len(data["clips"]) == 300
    assert len(data["settings"]) == 2, "request with model and numerics; who made them"
    assert data["run"]["committed"] == 300
