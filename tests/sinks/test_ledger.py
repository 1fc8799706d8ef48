import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from wanray.errors import FailureClass, StorageError
from wanray.records import FailedTry, Failure, Record, Request
from wanray.registry import Guidance
from wanray.sinks.encoded import Encoded, encoded_file, encoded_folder
from wanray.sinks.index import append_index
from wanray.sinks.ledger import Ledger, clip_folder
from wanray.storage import Store

REQUEST = Request(
    task="t2v",
    prompt="a cat",
    negative_prompt="",
    width=32,
    height=32,
    num_frames=5,
    fps=16.0,
    seed=0,
    steps=2,
    shift=5.0,
    guidance=Guidance(high=5.0, low=5.0),
    solver="unipc",
)
TRY = FailedTry(stage="decode", failure_class=FailureClass.MODEL, message="NaN in latents")
FAILURE = Failure(stage=TRY.stage, failure_class=TRY.failure_class, message=TRY.message, tries=(TRY,) * 3)


@pytest.fixture(params=["local", "s3"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    url = str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3_url")
    return Ledger(Store.open(url))


@pytest.fixture
def local_ledger(tmp_path: Path) -> Ledger:
    return Ledger(Store.open(str(tmp_path / "out")))


def key_of(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def movie(mp4: bytes) -> Encoded:
    return encoded_file("video", "mp4", mp4, codec="h264", num_frames=5)


def folder_of_frames(data: bytes) -> Encoded:
    return encoded_folder([b"%d of %s" % (index, data) for index in range(5)], codec="png")


def commit(ledger: Ledger, key: str, clip: bytes | Encoded) -> bool:
    encoded = movie(clip) if isinstance(clip, bytes) else clip
    record = Record(key=key, ids=("1",), request=REQUEST)
    # As timings do, this tells attempts apart: for a bucket, a put of equal bytes is the same put again.
    meta = {"key": key, "video": {"path": f"{clip_folder(key)}/{encoded.path}"}, "attempt": uuid4().hex}
    return ledger.commit(record, encoded, b"poster", {"latents.safetensors": b"latents"}, meta)


def index_row(key: str) -> dict[str, Any]:
    return {"key": key, "ids": ["1"], "prompt": "a cat", "tags": "{}"}


def test_a_commit_stores_payload_and_meta(ledger: Ledger) -> None:
    key = key_of(1)
    assert ledger.read_meta(key) is None
    assert commit(ledger, key, b"video")
    meta = ledger.read_meta(key)
    assert meta is not None
    assert ledger.store.read(meta["video"]["path"]) == b"video"
    expected = ["latents.safetensors", "meta.json", "poster.jpg", movie(b"video").path]
    assert ledger.store.names(clip_folder(key)) == expected


def test_a_second_commit_changes_nothing(ledger: Ledger) -> None:
    key = key_of(1)
    assert commit(ledger, key, b"first")
    before = {path: ledger.store.read(path) for path in ledger.store.find("")}
    assert not commit(ledger, key, b"second")
    assert {path: ledger.store.read(path) for path in ledger.store.find("")} == before


def test_a_clip_may_be_many_files(ledger: Ledger) -> None:
    key, encoded = key_of(1), folder_of_frames(b"first")
    assert commit(ledger, key, encoded)
    found = ledger.store.find(f"{clip_folder(key)}/{encoded.path}")
    assert found == [f"{clip_folder(key)}/{encoded.path}/{index:06d}.png" for index in range(5)]
    assert [ledger.store.read(path) for path in found] == list(encoded.files.values())
    before = ledger.store.find("")
    assert not commit(ledger, key, folder_of_frames(b"second"))
    assert ledger.store.find("") == before


@pytest.mark.parametrize("encoded", [movie(b"video"), folder_of_frames(b"video")], ids=["file", "folder"])
def test_what_a_killed_attempt_left_is_removed(ledger: Ledger, encoded: Encoded) -> None:
    key = key_of(1)
    for left in ("video-00000000.mp4", "image-00000000.png", "frames-00000000/000003.png"):
        ledger.store.write(f"{clip_folder(key)}/{left}", b"of a killed attempt")
    assert commit(ledger, key, encoded)
    assert clips(ledger, key) == sorted(encoded.files)


def test_the_state_of_a_clip_goes_with_its_commit(ledger: Ledger) -> None:
    key, other = key_of(1), key_of(2)
    for name in (key, other):
        ledger.store.write(f"work/{name}/state-000001-00000000.safetensors", b"state")
    assert commit(ledger, key, b"video")
    assert ledger.store.find("work") == [f"work/{other}/state-000001-00000000.safetensors"]
    ledger.store.write(f"work/{key}/state-000002-00000000.safetensors", b"of an attempt that lost")
    assert not commit(ledger, key, b"other")
    assert ledger.store.find(f"work/{key}") == []


def test_leftovers_that_cannot_be_removed_do_not_fail_a_commit(
    local_ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key, delete = key_of(1), Store.delete
    local_ledger.store.write(f"work/{key}/state", b"state")

    def refusing(store: Store, path: str) -> None:
        if path.startswith("work/"):
            raise StorageError("cannot delete: denied")
        delete(store, path)

    monkeypatch.setattr(Store, "delete", refusing)
    assert commit(local_ledger, key, b"video")
    assert f"key={key}" in caplog.text
    assert "denied" in caplog.text
    assert local_ledger.is_committed(key)


@pytest.mark.parametrize("make", [movie, folder_of_frames])
def test_who_loses_while_uploading_leaves_the_winner_as_it_is(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, make: Callable[[bytes], Encoded]
) -> None:
    key, write = key_of(1), Store.write
    raced: list[bool] = []

    def overtaken(store: Store, path: str, data: bytes) -> None:
        write(store, path, data)
        if not raced:
            raced.append(True)
            record = Record(key=key, ids=("1",), request=REQUEST)
            meta = {"key": key, "video": {"path": f"{clip_folder(key)}/{movie(b'winner').path}"}}
            extra = {"latents.safetensors": b"the winner's latents"}
            assert ledger.commit(record, movie(b"winner"), b"the winner's poster", extra, meta)

    monkeypatch.setattr(Store, "write", overtaken)
    assert not commit(ledger, key, make(b"loser"))
    assert clips(ledger, key) == [movie(b"winner").path]
    assert ledger.store.read(f"{clip_folder(key)}/poster.jpg") == b"the winner's poster"
    assert ledger.store.read(f"{clip_folder(key)}/latents.safetensors") == b"the winner's latents"


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("make", [movie, folder_of_frames])
def test_of_racing_commits_one_wins_with_its_own_clip(
    ledger: Ledger, same: bool, make: Callable[[bytes], Encoded]
) -> None:
    attempts = [make(b"same" if same else b"%d" % number) for number in range(4)]
    barrier = threading.Barrier(4)

    def attempt(key: str, number: int) -> bool:
        barrier.wait()
        return commit(ledger, key, attempts[number])

    with ThreadPoolExecutor(4) as pool:
        for key in map(key_of, range(2)):
            wins = list(pool.map(attempt, [key] * 4, range(4)))
            assert wins.count(True) == 1
            winner = attempts[wins.index(True)]
            meta = ledger.read_meta(key)
            assert meta is not None
            assert meta["video"]["path"] == f"{clip_folder(key)}/{winner.path}"
            assert clips(ledger, key) == sorted(winner.files)
            assert all(
                ledger.store.read(f"{clip_folder(key)}/{name}") == winner.files[name] for name in winner.files
            )


def test_nothing_is_committed_when_a_file_cannot_be_written(local_ledger: Ledger, tmp_path: Path) -> None:
    key, encoded = key_of(1), folder_of_frames(b"video")
    obstacle = tmp_path / "out" / clip_folder(key) / encoded.path
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("not a folder")
    with pytest.raises(StorageError):
        commit(local_ledger, key, encoded)
    assert local_ledger.read_meta(key) is None


def test_committed_keys_are_those_with_a_meta(ledger: Ledger) -> None:
    keys = [key_of(number) for number in range(4)]
    for key in keys:
        commit(ledger, key, b"video")
    ledger.store.write(f"{clip_folder(key_of(99))}/video-00000000.mp4", b"not committed")
    ledger.store.write("clips/README.txt", b"not a prefix")
    ledger.store.write("clips/ab/README.txt", b"not a clip")
    expected = set(map(bytes.fromhex, keys))
    assert ledger.committed_keys() == expected
    append_index(ledger.store, "run-1", [index_row(key) for key in keys[:3]], 0)
    append_index(ledger.store, "run-1", [index_row(key_of(77))], 1)  # its folder was deleted
    assert ledger.committed_keys() == expected


def test_a_store_without_clips_has_no_committed_keys(ledger: Ledger) -> None:
    assert ledger.committed_keys() == set()
    assert ledger.failures() == []


@pytest.mark.parametrize("num_indexed", [0, 30, 100])
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_many_clips_of_one_prefix_are_found(tmp_path: Path, kind: str, num_indexed: int) -> None:
    ledger = Ledger(Store.open(f"memory:/{tmp_path}" if kind == "memory" else str(tmp_path)))
    keys = [f"ab{key_of(number)[2:]}" for number in range(100)]
    for key in keys:
        ledger.store.write(f"{clip_folder(key)}/meta.json", b"{}")
    ledger.store.write(f"{clip_folder('ab' + key_of(100)[2:])}/poster.jpg", b"not committed")
    append_index(ledger.store, "run-1", [index_row(key) for key in keys[:num_indexed]], 0)
    assert ledger.committed_keys() == set(map(bytes.fromhex, keys))


def test_a_failure_says_what_happened_and_goes_with_the_commit(ledger: Ledger) -> None:
    key = key_of(1)
    ledger.write_failure(key, ("1", "2"), FAILURE, "run-1", REQUEST.to_json())
    assert ledger.failures() == [key]
    content = ledger.read_failure(key)
    assert content is not None
    assert content.pop("created_at").endswith("+00:00")
    assert content == {
        "key": key,
        "ids": ["1", "2"],
        "stage": "decode",
        "class": "model",
        "cause": "error",
        "message": "NaN in latents",
        "attempts": 3,
        "causes": [
            {"stage": "decode", "class": "model", "cause": "error", "message": "NaN in latents"},
        ]
        * 3,
        "run": "run-1",
        "request": json.loads(REQUEST.to_json()),
    }
    assert commit(ledger, key, b"video")
    assert ledger.failures() == []


def test_a_failure_may_lack_a_request_and_be_removed_twice(local_ledger: Ledger) -> None:
    key = key_of(1)
    local_ledger.write_failure(key, ["1"], FAILURE, "run-1", None)
    content = local_ledger.read_failure(key)
    assert content is not None
    assert content["request"] is None
    local_ledger.remove_failure(key)
    local_ledger.remove_failure(key)
    assert local_ledger.read_failure(key) is None


def clips(ledger: Ledger, key: str) -> list[str]:
    """Paths below the clip's folder of all that belongs to any attempt's clip."""
    paths = (path.removeprefix(f"{clip_folder(key)}/") for path in ledger.store.find(clip_folder(key)))
    return [path for path in paths if path.startswith(("video-", "image-", "frames-"))]
