"""`wanray serve` as a user runs it: requests over HTTP to a real server, whose processes are killed."""

import hashlib
import json
import shutil
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager, suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import s3_proxy
from processes import kill_one
from serving import LONG, SMALL, TOKEN, Server, data_uri, events, meta_of, metas, png

from benchmarks.seaweed import BUCKET, CREDENTIALS
from wanray.sinks.claims import Claims, heartbeat
from wanray.storage import Store

MAX_OPEN = 12
"""More than the pools take in, so that some wait before them."""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def proxy(s3_endpoint):
    """What stands between the server and its store; faults are switched on where a test wants some."""
    with s3_proxy.running(s3_endpoint, seed=1) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": s3_endpoint}).items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def server(tiny, proxy, tmp_path_factory):
    """One server for the tests of this file, which leave no request open."""
    keys = {"serve.max_open": MAX_OPEN, "serve.max_body_mib": 1, "claim": "true"}
    keys["output.save_latents"] = "true"
    folder, out = tmp_path_factory.mktemp("serve"), f"s3://{BUCKET}/{uuid.uuid4().hex}"
    made = Server(folder, tiny("ti2v-5b"), out, **keys)
    made.start(AWS_ENDPOINT_URL=proxy.url)
    try:
        made.wait_ready()
        yield made
    finally:
        made.end()


@pytest.fixture(autouse=True)
def _leaves_nothing_open(request):
    """What a test leaves in work, if it failed, is not in the way of the next."""
    yield
    if "server" not in request.fixturenames:
        return
    server = request.getfixturevalue("server")
    for view in server.call("GET").json()["data"]:
        server.call("DELETE", view["id"])
    with suppress(AssertionError):
        server.wait_until(lambda: server.call("GET").json()["data"] == [], 15)


@contextmanager
def faults(proxy, **settings):
    """The store as on a bad day, until the block ends."""
    proxy.faults.update(settings | {"error_rate": "1"})
    try:
        yield
    finally:
        proxy.faults.update({"error_rate": "0"})


@pytest.fixture(scope="module")
def store(server):
    return Store.open(server.out)


@pytest.fixture(scope="module")
def clip(server):
    """A completed request: (its row, its view)."""
    row = {"id": "cat", "prompt": "a cat", "seed": 1, "tags": {"scene": "beach"}}
    return SMALL | row, server.wait_for(server.accepted(**row), "completed")


# Who may ask, and for what


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer x", f"bearer {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/videos"),
        ("GET", "/v1/videos"),
        ("GET", f"/v1/videos/{'a' * 64}"),
        ("GET", f"/v1/videos/{'a' * 64}/events"),
        ("GET", f"/v1/videos/{'a' * 64}/content"),
        ("DELETE", f"/v1/videos/{'a' * 64}"),
        ("GET", "/v1/status"),
    ],
)
def test_without_the_token_nobody_is_let_in(server, header, method, path):
    headers = {} if header is None else {"Authorization": header}
    answer = requests.request(method, server.url + path, headers=headers, json={}, timeout=30)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == 401
    assert TOKEN not in answer.text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_what_is_no_path_of_the_api_is_not_there(server, path):
    assert requests.get(server.url + path, timeout=30).status_code in (401, 404)


def test_a_request_that_breaks_rules_is_told_all_of_them(server):
    code, body = server.send({"prompt": "a cat", "steps": 0, "num_frames": 4})
    assert (code, body["error"]["code"]) == (400, 400)
    assert {item["field"] for item in body["error"]["problems"]} == {"steps", "num_frames"}
    code, body = server.send({"prompt": "a cat", "widht": 64})
    assert (code, body["error"]["problems"][0]["message"]) == (400, "is not known: did you mean width?")
    code, body = server.send({"image": "/etc/passwd", "prompt": "a cat"})
    assert (code, body["error"]["problems"][0]["field"]) == (400, "image")


BODIES = {
    "nothing": b"",
    "a list": b"[]",
    "an empty object": b"{}",
    "no prompt": b'{"seed": 1}',
    "half a character": rb'{"prompt": "a \ud800 cat"}',
    "half a character in a field": rb'{"prompt": "a cat", "x\ud800": 1}',
    "deep": b'{"a":' * 100_000,
    "deep tags": b'{"prompt": "a", "tags":' + b'{"a":' * 600 + b"1" + b"}" * 601,
    "a huge number": b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}",
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_odd_bodies_are_the_fault_of_who_sends_them(server, body):
    answer = server.call("POST", data=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_a_large_body_is_refused(server):
    answer = server.call("POST", data=b'{"prompt": "' + b"a" * 2**20 + b'"}')
    assert answer.status_code == 413
    assert "serve.max_body_mib" in answer.json()["error"]["message"]


UNKNOWN = ["a" * 64, "x", "..", "..%2f..%2fx", "%2e%2e", "A" * 64, "a" * 63 + "%0a", "%00", "a" * 5000]


@pytest.mark.parametrize("key", UNKNOWN, ids=lambda key: key[:12])
def test_what_is_not_there_is_not_found(server, key):
    for method, path in [("GET", ""), ("GET", "/content"), ("GET", "/events"), ("DELETE", "")]:
        prepared = server.session.prepare_request(requests.Request(method, server.url))
        prepared.url = f"{server.url}/v1/videos/{key}{path}"  # as it is: a client may send anything
        answer = server.session.send(prepared, timeout=60)
        assert answer.status_code == 404, (method, path, answer.text)


# A request


def test_a_request_becomes_a_video(server, store, clip):
    row, view = clip
    key = view["id"]
    assert (view["status"], view["progress"], view["ids"]) == ("completed", 100, ["cat"])
    assert (view["request"]["prompt"], view["request"]["steps"]) == ("a cat", SMALL["steps"])
    meta = meta_of(store, key)
    assert (meta["key"], meta["ids"], meta["tags"]) == (key, ["cat"], row["tags"])
    assert view["video"] == meta["video"]
    assert store.find("queue") == []


def test_the_video_is_one(server, store, clip, tmp_path):
    _, view = clip
    answer = server.call("GET", f"{view['id']}/content")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "video/mp4")
    assert hashlib.sha256(answer.content).hexdigest() == view["video"]["sha256"]
    assert len(answer.content) == view["video"]["bytes"]
    (tmp_path / "v.mp4").write_bytes(answer.content)
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not on PATH")
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", tmp_path / "v.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (stream,) = json.loads(done.stdout)["streams"]
    assert (stream["width"], stream["height"], stream["nb_read_frames"]) == (64, 64, "5")


def test_a_player_may_seek(server, clip):
    path = f"{clip[1]['id']}/content"
    whole = server.call("GET", path).content
    for wanted, part in [("bytes=0-99", whole[:100]), ("bytes=100-", whole[100:]), ("bytes=-7", whole[-7:])]:
        answer = server.call("GET", path, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (206, part)
        assert answer.headers["Content-Range"].endswith(f"/{len(whole)}")
    assert server.call("GET", path, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


def test_the_same_request_again_is_the_same_video(server, store, clip):
    row, view = clip
    answer = server.call("POST", json=row)
    assert (answer.status_code, answer.json()["id"]) == (200, view["id"])
    assert answer.json()["video"] == view["video"]
    assert server.send(row | {"id": "other", "priority": 5, "tags": {}})[0] == 200
    assert server.call("GET").json() == {"object": "list", "data": []}
    assert server.call("DELETE", view["id"]).status_code == 409
    assert server.look(view["id"])["status"] == "completed"
    committed = [event for event in events(store, "committed") if event["key"] == view["id"]]
    assert len(committed) <= 1, "its event may not be stored yet"


def test_an_image_comes_along_and_is_animated(server, store):
    content = png("red")
    sha256 = hashlib.sha256(content).hexdigest()
    view = server.wait_for(server.accepted(prompt="it moves", seed=3, image=data_uri(content)), "completed")
    assert (view["request"]["task"], view["request"]["inputs"]) == ("i2v", {"image": [sha256]})
    assert store.read(f"inputs/{sha256}") == content
    other = server.wait_for(
        server.accepted(prompt="it moves", seed=3, image=data_uri(png("blue"))), "completed"
    )
    assert other["video"]["sha256"] != view["video"]["sha256"]


def test_the_clip_is_that_of_a_batch_run(server, store, clip, tiny, tmp_path, run_cli):
    row, view = clip
    plain = {name: value for name, value in row.items() if name != "tags"}
    pq.write_table(pa.Table.from_pylist([plain]), tmp_path / "m.parquet")
    (tmp_path / "c.yaml").write_text("{}\n")
    config = {"engine": "local", "numerics.dtype": "float32", "output.save_latents": "true"}
    config |= {"manifest": tmp_path / "m.parquet", "model.path": tiny("ti2v-5b")}
    arguments = [f"{key}={value}" for key, value in (config | {"output.url": tmp_path / "out"}).items()]
    assert run_cli("render", tmp_path / "c.yaml", *arguments)[0] == 0
    batch, folder = Store.open(str(tmp_path / "out")), f"clips/{view['id'][:2]}/{view['id']}"
    assert metas(batch) == [view["id"]]
    assert meta_of(batch, view["id"])["video"]["sha256"] == view["video"]["sha256"]
    latents = f"{folder}/latents.safetensors"
    assert batch.read(latents) == store.read(latents)


def test_what_happens_is_told_as_it_happens(server):
    key = server.accepted(prompt="a story", seed=1, steps=200)
    answer = server.call("GET", f"{key}/events", stream=True)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    views = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith(b"data: ")]
    assert views[-1]["status"] == "completed"
    assert [view["status"] for view in views[:-1]] == ["in_progress"] * (len(views) - 1)
    assert len(views) > 1
    steps = [view["step"] for view in views if view.get("stage") == "denoise"]
    assert steps == sorted(steps)
    assert {view["id"] for view in views} == {key}
    after = server.call("GET", f"{key}/events")
    assert json.loads(after.text.removeprefix("data: "))["status"] == "completed"


# Cancelling


def test_one_in_work_is_cancelled_and_can_be_sent_again(server, store):
    key = server.accepted(prompt="a long one", seed=1, steps=LONG)
    view = server.wait_for_step(key)
    assert (view["status"], view["stage"], view["num_steps"]) == ("in_progress", "denoise", LONG)
    answer = server.call("GET", f"{key}/content")
    assert (answer.status_code, "in_progress" in answer.json()["error"]["message"]) == (409, True)
    answer = server.call("DELETE", key)
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert server.look(key)["status"] == "cancelled"
    server.wait_until(lambda: server.call("GET").json()["data"] == [])
    assert store.find("queue") + store.find(f"work/{key}") == []
    assert key not in metas(store)
    assert server.call("DELETE", key).status_code == 409
    assert server.call("GET", f"{key}/content").status_code == 409
    assert server.accepted(prompt="a long one", seed=1, steps=LONG) == key
    assert server.look(key)["status"] in ("queued", "in_progress")
    assert server.wait_for(key, "completed")["video"]["num_frames"] == 5


def test_one_that_is_cancelled_at_once_is_not_rendered(server, store):
    """Wherever it is by then: before the pools, in the first, or between two."""
    keys = []
    for seed in range(8):
        keys.append(server.accepted(prompt="never mind", seed=seed, steps=LONG))
        time.sleep(0.02 * seed)
        assert server.call("DELETE", keys[-1]).status_code == 202
    server.wait_until(lambda: server.call("GET").json()["data"] == [], 200)
    assert {server.look(key)["status"] for key in keys} == {"cancelled"}
    assert not set(keys) & set(metas(store))


def test_no_more_are_taken_than_there_is_room_for(server, store):
    keys = [server.accepted(prompt="one of many", seed=seed, steps=LONG) for seed in range(MAX_OPEN)]
    assert len(set(keys)) == MAX_OPEN
    answer = server.call("POST", json=SMALL | {"prompt": "one too many", "seed": 1})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    again = SMALL | {"prompt": "one of many", "seed": 0, "steps": LONG}
    assert server.send(again)[1]["id"] == keys[0], "what is open is not one more"
    listed = server.call("GET").json()["data"]
    assert [view["id"] for view in listed] == keys
    states = [view["status"] for view in listed]
    assert set(states) == {"queued", "in_progress"}
    assert states == sorted(states), "those that came first are in work"
    assert len(store.find("queue")) == MAX_OPEN
    waiting = keys[-1]
    assert server.call("DELETE", waiting).json()["status"] == "cancelled"
    assert server.look(waiting)["status"] == "cancelled"
    assert waiting not in [view["id"] for view in server.call("GET").json()["data"]]
    assert len(store.find("queue")) == MAX_OPEN - 1
    assert server.accepted(prompt="one of many", seed=MAX_OPEN - 1, steps=LONG) == waiting
    for key in reversed(keys):
        assert server.call("DELETE", key).status_code == 202
    server.wait_until(lambda: server.call("GET").json()["data"] == [])
    assert store.find("queue") == []
    assert not set(keys) & set(metas(store))


@pytest.mark.slow
def test_who_hangs_up_leaves_nothing_half_done(server, store, proxy):
    """What is open after a client went away is rendered, or was never accepted."""
    with faults(proxy, kinds="slow", slow_s="0.5"):
        for number in range(8):
            row = SMALL | {"prompt": "hang up", "seed": number}
            with suppress(requests.Timeout):
                server.session.post(f"{server.url}/v1/videos", json=row, timeout=(5, 0.2 + 0.25 * number))
            time.sleep(1)
    server.wait_until(lambda: server.call("GET").json()["data"] == [], 60)
    assert store.find("queue") == []


def test_the_same_from_many_at_once_is_rendered_once(server, store):
    answers = []

    def send():
        headers = {"Authorization": f"Bearer {TOKEN}"}
        row = SMALL | {"prompt": "everybody's", "seed": 1}
        answers.append(requests.post(f"{server.url}/v1/videos", json=row, headers=headers, timeout=60))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {200, 202}
    (key,) = {answer.json()["id"] for answer in answers}
    server.wait_for(key, "completed")
    assert metas(store).count(key) == 1


# The whole


def test_the_endpoint_tells_how_it_does(server, clip):
    status = server.session.get(f"{server.url}/v1/status", timeout=60).json()
    assert (status["model"], status["state"], status["failed"]) == ("ti2v-5b", "rendering", 0)
    assert [pool["name"] for pool in status["pools"]] == ["encode", "denoise", "decode"]
    assert status["committed"] >= 1
    assert status["left"] == 0


def test_who_was_cancelled_is_not_in_a_queue(server):
    key = server.accepted(prompt="in and out", seed=1, steps=LONG)
    server.wait_for_step(key)
    assert server.call("DELETE", key).status_code == 202

    def queues():
        pools = server.session.get(f"{server.url}/v1/status", timeout=60).json()["pools"]
        return [(pool["active"], pool["queued"]) for pool in pools]

    with suppress(AssertionError):
        server.wait_until(lambda: queues() == [(0, 0)] * 3, 15)  # news of the pools come late
    assert queues() == [(0, 0)] * 3


def test_the_commands_read_the_output(server, store, clip, run_cli):
    server.wait_until(lambda: "live.json" in "".join(store.find("runs")))
    code, out, err = run_cli("status", server.out, "--json")
    assert code == 0, err
    assert json.loads(out)["committed"] == len(set(metas(store)))
    assert run_cli("status", server.out)[0] == 0
    code, out, err = run_cli("verify", server.out)
    assert code == 0, out + err
    code, out, err = run_cli("report", server.out)
    assert code == 0, out + err
    code, out, err = run_cli("gc", server.out)
    assert code == 0, out + err


# Faults


@pytest.mark.slow
def test_one_that_another_run_holds_is_cancelled_and_left_to_it(server, store):
    with heartbeat(store, "other", 120.0):
        held = held_by(store, "other", server, {"prompt": "somebody else's", "seed": 1})
        assert server.call("DELETE", held).status_code == 202
        assert server.look(held)["status"] == "cancelled"
        server.wait_until(lambda: server.call("GET").json()["data"] == [], 30)
        assert store.find(f"work/{held}"), "the claim is not ours to clear"
    Claims(store, "other", 120.0).release(held)
    assert held not in metas(store)


def held_by(store, run, server, row):
    """Send a request whose key `run` has claimed before; returns it."""
    key = server.accepted(**row | {"steps": LONG, "num_frames": 41})
    server.wait_for_step(key)
    assert server.call("DELETE", key).status_code == 202
    server.wait_until(lambda: server.call("GET").json()["data"] == [])
    assert Claims(store, run, 120.0).take(key) is None
    assert server.accepted(**row | {"steps": LONG, "num_frames": 41}) == key
    time.sleep(1)
    assert server.look(key)["status"] == "in_progress"
    return key


def test_the_renderer_dies_and_all_that_was_accepted_is_rendered_once(server, store):
    keys = [server.accepted(prompt="survivor", seed=seed, steps=300) for seed in range(5)]
    unwanted = server.accepted(prompt="unwanted", seed=1, steps=300)
    assert server.call("DELETE", unwanted).status_code == 202
    server.wait_for_step(keys[0])
    assert kill_one(server.processes(), "ray::ServeReplica:wanray:renderer")
    assert {server.call("GET", key).status_code for key in keys} == {200}, "the output tells of them"
    for key in keys:
        server.wait_for(key, "completed", seconds=200)
    committed = metas(store)
    assert [committed.count(key) for key in keys] == [1] * len(keys)
    assert unwanted not in committed
    assert server.call("GET", unwanted).status_code in (200, 404)
    server.wait_until(lambda: store.find("queue") == [])
    assert server.wait_for(server.accepted(prompt="afterwards", seed=1), "completed")


@pytest.mark.slow
def test_the_store_is_away_for_a_minute(server, store, proxy):
    keys = [server.accepted(prompt="patient", seed=seed, steps=600) for seed in range(3)]
    server.wait_for_step(keys[0])
    with faults(proxy, kinds="internal"):
        began_s = time.monotonic()
        answer = server.call("POST", json=SMALL | {"prompt": "not now", "seed": 1})
        assert (answer.status_code, "store" in answer.json()["error"]["message"]) == (503, True)
        assert int(answer.headers["Retry-After"]) > 0
        time.sleep(max(0.0, began_s + 60 - time.monotonic()))
    for key in keys:
        server.wait_until(lambda key=key: server.call("GET", key).json().get("status") == "completed", 200)
    assert sorted(key for key in metas(store) if key in keys) == sorted(keys)
    server.wait_until(lambda: store.find("queue") == [])
