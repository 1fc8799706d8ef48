"""Every way to damage a clip, what is said of it, and that it is rendered again."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from wanray.config.schema import VideoConfig
from wanray.errors import ConfigError, StorageError
from wanray.records import Clip, Record, Request
from wanray.registry import Guidance
from wanray.sinks.index import append_index, drop_from_index, index_row, indexed_keys
from wanray.sinks.ledger import Ledger, clip_folder
from wanray.sinks.video import encode_frames
from wanray.storage import Store
from wanray.upkeep import verify
from wanray.upkeep.clip import Damage, check_clip
from wanray.upkeep.output import open_output
from wanray.upkeep.verify import check_clips, keys_to_check, requeue


def damages(output: Any, key: str, *, fast: bool = False) -> list[tuple[str, str, str]]:
    """(name in the clip's folder, expected, found) of all that is wrong."""
    found = check_clip(output.store, key, fast=fast)
    assert all(damage.key == key for damage in found)
    return [(damage.path.split("/")[3], damage.expected, damage.found) for damage in found]


def edit_meta(output: Any, key: str, change: Callable[[dict[str, Any]], Any]) -> None:
    meta = output.meta(key)
    change(meta)
    output.store.write(f"{clip_folder(key)}/meta.json", json.dumps(meta).encode())


def test_what_was_rendered_is_fine(output: Any) -> None:
    keys = keys_to_check(output.ledger, None)
    assert keys == output.keys
    assert len(keys) == 3
    before = output.tree()
    assert list(check_clips(output.ledger, keys, fast=False)) == []
    assert list(check_clips(output.ledger, keys, fast=True)) == []
    assert output.tree() == before


def test_a_damaged_video_is_told(output: Any) -> None:
    missing, short, flipped = output.keys
    path = {key: output.meta(key)["video"]["path"] for key in output.keys}
    data = {key: output.store.read(path[key]) for key in output.keys}
    output.store.delete(path[missing])
    output.store.write(path[short], data[short][:-100])
    turned = bytearray(data[flipped])
    turned[len(turned) // 2] ^= 1
    output.store.write(path[flipped], bytes(turned))
    size = len(data[short])
    assert damages(output, missing)[0][1:] == (f"a video of {len(data[missing])} bytes", "none")
    assert damages(output, short)[0][1:] == (f"{size} bytes", f"{size - 100} bytes")
    ((_, expected, found),) = damages(output, flipped)
    assert expected == f"sha256 {output.meta(flipped)['video']['sha256']}"
    assert found.startswith("sha256 ")
    assert found != expected
    assert [bool(damages(output, key, fast=True)) for key in output.keys] == [True, True, False]


def test_a_video_that_does_not_decode_is_told_although_its_sum_is_right(local_output: Any) -> None:
    import hashlib

    key = local_output.keys[0]
    path, junk = local_output.meta(key)["video"]["path"], b"no video at all" * 10
    local_output.store.write(path, junk)
    sums = {"sha256": hashlib.sha256(junk).hexdigest(), "bytes": len(junk)}
    edit_meta(local_output, key, lambda meta: meta["video"].update(sums))
    ((_, expected, found),) = damages(local_output, key)
    assert expected == "5 frames that decode"
    assert "it is no" in found or "damaged" in found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda meta: meta.pop("versions"), "the field versions"),
        (lambda meta: meta["video"].pop("sha256"), "the field video.sha256"),
        (lambda meta: meta["video"].update(bytes="many"), "another type of video.bytes"),
        (lambda meta: meta.update(ids=None), "another type of ids"),
        (lambda meta: meta["video"].update(num_frames=9), "video.num_frames 5 as in request"),
        (lambda meta: meta.update(key="0" * 64), "key {key}"),
        (lambda meta: meta["video"].update(path="../../etc/passwd"), "a video.path below clips/"),
        (lambda meta: (meta["video"].update(num_frames=9), meta["request"].update(num_frames=9)), "9 frames"),
        (lambda meta: (meta["video"].update(width=96), meta["request"].update(width=96)), "96x48 pixels"),
    ],
)
def test_a_wrong_meta_is_told(local_output: Any, change: Callable[[Any], Any], expected: str) -> None:
    key = local_output.keys[0]
    edit_meta(local_output, key, change)
    (_, told, found), *_ = damages(local_output, key)
    assert told.startswith(expected.format(key=key))
    assert found


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff"])
def test_a_meta_that_is_none_is_told(local_output: Any, text: bytes) -> None:
    key = local_output.keys[0]
    local_output.store.write(f"{clip_folder(key)}/meta.json", text)
    ((name, expected, _),) = damages(local_output, key)
    assert (name, expected.split()[-1]) == ("meta.json", "object" if text == b"[]" else "JSON")


def test_a_meta_that_is_gone_is_told_as_long_as_the_index_has_it(output: Any) -> None:
    key = output.keys[0]
    output.store.delete(f"{clip_folder(key)}/meta.json")
    assert key in keys_to_check(output.ledger, None)
    assert damages(output, key) == [("meta.json", "the meta.json of a clip that is in the index", "none")]


def test_poster_and_latents_are_looked_at(local_output: Any) -> None:
    no_poster, cut, shape = local_output.keys
    local_output.store.delete(f"{clip_folder(no_poster)}/poster.jpg")
    latents = f"{clip_folder(cut)}/latents.safetensors"
    local_output.store.write(latents, local_output.store.read(latents)[:-8])
    wrong = save({"latents": np.zeros((16, 2, 6, 9), np.float32)})
    local_output.store.write(f"{clip_folder(shape)}/latents.safetensors", wrong)
    assert damages(local_output, no_poster) == [("poster.jpg", "a poster", "none")]
    ((_, expected, _),) = damages(local_output, cut)
    assert expected == "a safetensors file with `latents`"
    ((_, *words),) = damages(local_output, shape)
    assert words == ["float32 [16, 2, 6, 8]", "float32 [16, 2, 6, 9]"]
    local_output.store.delete(latents)
    assert damages(local_output, cut) == [], "latents are an option"
    local_output.store.write(f"{clip_folder(shape)}/latents.safetensors", save({"other": np.zeros(1)}))
    assert "latents" in damages(local_output, shape)[0][2]


def test_all_damages_of_a_clip_are_told(local_output: Any) -> None:
    key = local_output.keys[0]
    local_output.store.delete(f"{clip_folder(key)}/poster.jpg")
    local_output.store.delete(local_output.meta(key)["video"]["path"])
    assert len(damages(local_output, key)) == 2


REQUEST = Request(
    task="t2v",
    prompt="a cat",
    negative_prompt="",
    width=32,
    height=32,
    num_frames=5,
    fps=8.0,
    seed=0,
    steps=2,
    shift=5.0,
    guidance=Guidance(high=5.0, low=5.0),
    solver="unipc",
)


@dataclass(frozen=True)
class Bare:
    """A store with one clip."""

    store: Store


def commit(folder: Path, frames_FHWC: np.ndarray, **video: Any) -> tuple[Bare, str]:
    """Commit a clip of any format; its latents are none."""
    key, ledger = "ab" + "0" * 62, Ledger(Store.open(str(folder)))
    request = replace(REQUEST, num_frames=len(frames_FHWC))
    still = len(frames_FHWC) == 1
    encoded = encode_frames(iter(frames_FHWC), 8.0, VideoConfig(**video), {}, still=still)
    size = {"width": 32, "height": 32, "num_frames": len(frames_FHWC), "fps": 8.0}
    path = f"{clip_folder(key)}/{encoded.path}"
    clip = Clip(path=path, sha256=encoded.sha256, bytes=encoded.num_bytes, codec=encoded.codec, **size)
    meta = {name: {} for name in ("model", "numerics", "topology", "timings_s", "versions")}
    meta |= {"key": key, "ids": ["1"], "request": asdict(request), "video": asdict(clip)}
    meta |= {"attempts": 1, "created_at": "2026-01-01T00:00:00+00:00"}
    assert ledger.commit(Record(key=key, ids=("1",), request=request), encoded, b"poster", {}, meta)
    return Bare(ledger.store), key


MOVING = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("video_format", ["mp4", "webm", "gif", "webp", "png"])
@pytest.mark.parametrize("frames_FHWC", [MOVING, np.zeros_like(MOVING)], ids=["moving", "equal"])
def test_every_format_is_decoded(tmp_path: Path, video_format: str, frames_FHWC: np.ndarray) -> None:
    output, key = commit(tmp_path, frames_FHWC, format=video_format)
    assert damages(output, key) == []


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_a_still_is_decoded(tmp_path: Path, image_format: str) -> None:
    output, key = commit(tmp_path, MOVING[:1], image_format=image_format)
    assert damages(output, key) == []


def test_a_frame_that_is_missing_or_of_another_size_is_told(tmp_path: Path) -> None:
    output, key = commit(tmp_path, MOVING, format="png")
    *_, last = (path for path in output.store.find(clip_folder(key)) if path.endswith(".png"))
    data = output.store.read(last)
    output.store.delete(last)
    assert damages(output, key)[0][1:] == ("5 files", "4 files")
    output.store.write(last, bytes(reversed(data)))
    assert damages(output, key)[0][1].startswith("sha256")
    file = io.BytesIO()
    Image.fromarray(MOVING[0, :16]).save(file, "PNG")
    output.store.write(last, file.getvalue())
    assert damages(output, key)[0][1].endswith("bytes")


def test_what_is_given_back_is_rendered_again(output: Any) -> None:
    before = {key: output.meta(key)["video"] for key in output.keys}
    video, meta, _ = output.keys
    output.store.delete(before[video]["path"])
    output.store.delete(f"{clip_folder(meta)}/meta.json")
    output.store.write(f"{clip_folder(video)}/notes.txt", b"an extra file")
    keys = keys_to_check(output.ledger, None)
    broken = [found[0].key for found in check_clips(output.ledger, keys, fast=False)]
    assert broken == [video, meta]
    requeue(output.ledger, broken)
    assert output.store.find(clip_folder(video)) == output.store.find(clip_folder(meta)) == []
    assert indexed_keys(output.store).isdisjoint(map(bytes.fromhex, broken))
    assert output.render().committed == 2
    assert {key: output.meta(key)["video"] for key in output.keys} == before
    assert list(check_clips(output.ledger, keys_to_check(output.ledger, None), fast=False)) == []


@pytest.mark.parametrize("num_deletes", [0, 1, 2, 3])
def test_giving_back_may_be_killed_anywhere(
    output: Any, monkeypatch: pytest.MonkeyPatch, num_deletes: int
) -> None:
    key = output.keys[0]
    left, delete = [num_deletes], Store.delete

    def dying(store: Store, path: str) -> None:
        if path.startswith("clips/"):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        delete(store, path)

    monkeypatch.setattr(Store, "delete", dying)
    with pytest.raises(KeyboardInterrupt):
        requeue(output.ledger, [key])
    monkeypatch.setattr(Store, "delete", delete)
    is_committed = bytes.fromhex(key) in output.ledger.committed_keys()
    assert is_committed == (num_deletes == 0) == output.ledger.is_committed(key)
    if is_committed:  # still broken: the same command again
        requeue(output.ledger, [key])
    assert output.render().committed == 1
    assert damages(output, key) == []


def test_an_indexed_clip_without_meta_is_not_committed_in_a_folder(local_output: Any) -> None:
    emptied, without_meta, _ = local_output.keys
    for path in Path(local_output.url, clip_folder(emptied)).iterdir():
        path.unlink()
    local_output.store.delete(f"{clip_folder(without_meta)}/meta.json")
    assert len(indexed_keys(local_output.store)) == 3
    assert len(local_output.ledger.committed_keys()) == 1


def test_what_is_gone_from_a_bucket_can_be_taken_out_of_the_index(s3_url: str) -> None:
    ledger = Ledger(Store.open(s3_url))
    clip = Clip(path="v", sha256="", bytes=1, codec="h264", width=1, height=1, num_frames=1, fps=1.0)
    keys = [f"ab{number:062x}" for number in range(3)]
    for part, key in enumerate(keys):
        append_index(ledger.store, "run", [index_row(key, ["1"], REQUEST, clip, {})] * 2, part)
    there = bytes.fromhex(keys[0])
    ledger.store.write(f"{clip_folder(keys[0])}/meta.json", b"{}")
    indexed = indexed_keys(ledger.store)
    committed = ledger.committed_keys(indexed)
    assert committed == {there}
    drop_from_index(ledger.store, indexed - committed)
    assert indexed_keys(ledger.store) == {there}
    ledger.store.write(f"{clip_folder(keys[1])}/video-00000000.mp4", b"of a killed attempt")
    assert ledger.committed_keys() == {there}


def test_a_store_that_fails_is_no_damage(local_output: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(store: Store, path: str) -> bytes:
        raise StorageError("the disk is away")

    monkeypatch.setattr(Store, "read", failing)
    with pytest.raises(StorageError, match="away"):
        check_clip(local_output.store, local_output.keys[0], fast=False)


def test_a_sample_has_its_size(local_output: Any) -> None:
    assert len(keys_to_check(local_output.ledger, 2)) == 2
    assert keys_to_check(local_output.ledger, 99) == local_output.keys


def test_progress_is_logged(
    local_output: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(verify, "PROGRESS_S", 0.0)
    monkeypatch.setattr(verify, "_NUM_AT_ONCE", 2)
    with caplog.at_level("INFO", "wanray"):
        list(check_clips(local_output.ledger, local_output.keys, fast=True))
    assert [record.getMessage() for record in caplog.records] == [
        "checked 2 of 3 clips, 0 are broken",
        "checked 3 of 3 clips, 0 are broken",
    ]


def test_the_command_says_what_is_wrong_and_repairs(local_output: Any, run_cli: Any) -> None:
    url, key = local_output.url, local_output.keys[0]
    assert run_cli("verify", url) == (0, "3 clips checked, 0 are broken\n", "")
    (damage,) = _damage(local_output, key)
    code, out, _ = run_cli("verify", url)
    assert code == 2
    (name,) = local_output.meta(key)["ids"]
    assert out.splitlines() == [
        f"broken {key} (ids {name}): {damage.path}: expected {damage.expected}, found none; "
        f"`wanray verify {url} --repair` gives it back to the next render",
        "3 clips checked, 1 are broken",
    ]
    code, out, _ = run_cli("verify", url, "--fast", "--sample", 3, "--repair")
    assert code == 2
    assert out.endswith("1 are given back: the same `wanray render` renders them again\n")
    assert run_cli("verify", url)[:2] == (0, "2 clips checked, 0 are broken\n")
    code, _, err = run_cli("verify", url, "--sample", 0)
    assert (code, err) == (1, "error: --sample must be at least 1, got 0\n")


def _damage(output: Any, key: str) -> list[Damage]:
    output.store.delete(output.meta(key)["video"]["path"])
    return check_clip(output.store, key, fast=True)


@pytest.mark.parametrize("command", ["status", "verify", "index", "gc"])
def test_a_place_without_an_output_is_refused(tmp_path: Path, run_cli: Any, command: str) -> None:
    (tmp_path / "notes.txt").write_text("nothing of ours")
    for url in (tmp_path, tmp_path / "absent", tmp_path / "notes.txt"):
        code, _, err = run_cli(command, url)
        assert code == 1
        assert err == f"error: URL {url} holds no output of wanray: name the output.url of a render\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_a_bucket_without_an_output_is_refused(s3_url: str) -> None:
    for url in (s3_url, s3_url.replace("renders", "absent")):
        with pytest.raises(ConfigError, match="holds no output"):
            open_output(url)


@pytest.mark.parametrize("command", ["status", "verify", "index", "gc"])
def test_a_store_that_is_away_is_no_wrong_use(
    run_cli: Any, monkeypatch: pytest.MonkeyPatch, s3_url: str, command: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    code, _, err = run_cli(command, s3_url)
    assert code == 3
    assert "cannot list" in err
