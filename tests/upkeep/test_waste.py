"""gc removes exactly what nobody needs."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from wanray.errors import FailureClass
from wanray.records import FailedTry, Failure
from wanray.sinks.ledger import clip_folder
from wanray.storage import Store
from wanray.upkeep.waste import DAY_S, find_waste, remove

OTHER = "cd" + "0" * 62
FAILED = FailedTry(stage="denoise", failure_class=FailureClass.MODEL, message="NaN")
FAILURE = Failure(stage="denoise", failure_class=FailureClass.MODEL, message="NaN", tries=(FAILED,))


def age(output: Any, path: str, days: float) -> None:
    moment_s = time.time() - days * DAY_S
    os.utime(Path(output.url, path), (moment_s, moment_s))


def paths(output: Any, older_than_days: float = 7.0) -> list[str]:
    return sorted(item.path for item in find_waste(output.ledger, older_than_days).waste)


def put_waste(output: Any) -> list[str]:
    """What can go whatever its age, beside clips that are committed."""
    key = output.keys[0]
    junk = [
        f"work/{key}/state-000002-00000000.safetensors",
        f"{clip_folder(key)}/video-00000000.mp4",
        f"{clip_folder(key)}/frames-00000000/000001.png",
    ]
    for path in junk:
        output.store.write(path, b"12345")
    output.ledger.write_failure(key, ["1"], FAILURE, "first", None)
    return sorted([*junk, f"failures/{key}.json"])


def test_a_sound_output_has_no_waste(output: Any) -> None:
    assert paths(output) == paths(output, 0.0) == []


def test_it_removes_exactly_what_it_found(output: Any) -> None:
    before = output.tree()
    expected = put_waste(output)
    output.store.write(f"work/{OTHER}/state-000001-00000000.safetensors", b"a run may go on with it")
    output.store.write(f"{clip_folder(OTHER)}/video-00000000.mp4", b"an attempt may be under way")
    output.store.write("work/probe-1", b"")
    kept = {path: output.store.read(path) for path in output.store.find("") if path not in expected}
    assert before.keys() < kept.keys()
    found = find_waste(output.ledger, 7.0).waste
    assert sorted(item.path for item in found) == expected
    remove(output.ledger, found)
    assert output.tree() == kept


def test_what_a_run_could_take_up_goes_when_it_is_old(local_output: Any) -> None:
    state, video = f"work/{OTHER}/state.safetensors", f"{clip_folder(OTHER)}/video-00000000.mp4"
    frames = f"clips/ce/ce{OTHER[2:]}/frames-0"
    for path in (state, video, f"{frames}/000000.png", f"{frames}/000001.png"):
        local_output.store.write(path, b"1")
        age(local_output, path, 8.0)
    age(local_output, f"{frames}/000001.png", 6.0)
    assert paths(local_output) == sorted([state, video])
    assert paths(local_output, 9.0) == []
    assert len(paths(local_output, 0.0)) == 4


def test_a_run_that_lives_keeps_what_it_could_take_up(local_output: Any) -> None:
    expected = put_waste(local_output)
    path = f"work/{OTHER}/state.safetensors"
    local_output.store.write(path, b"1")
    age(local_output, path, 99.0)
    local_output.store.write("runs/live/config.yaml", b"")
    found = find_waste(local_output.ledger, 0.0)
    assert found.running == ["live"]
    assert sorted(item.path for item in found.waste) == expected
    age(local_output, "runs/live/config.yaml", 1.0)
    assert find_waste(local_output.ledger, 0.0).running == []
    assert path in paths(local_output)


def test_probes_and_unfinished_files_go_after_a_day(local_output: Any) -> None:
    names = (
        "work/probe-1",
        f"{clip_folder(OTHER)}/.unfinished-1",
        "runs/.unfinished-2",
        "inputs/.unfinished-3",
    )
    for path in names:
        Path(local_output.url, path).parent.mkdir(parents=True, exist_ok=True)
        Path(local_output.url, path).write_bytes(b"123")
        age(local_output, path, 0.9)
    assert paths(local_output) == []
    for path in names:
        age(local_output, path, 1.1)
    found = find_waste(local_output.ledger, 7.0).waste
    assert sorted((item.path, item.num_bytes) for item in found) == sorted((path, 3) for path in names[:2])
    remove(local_output.ledger, found)
    assert [Path(local_output.url, path).exists() for path in names] == [False, False, True, True]


def test_a_clip_that_was_committed_meanwhile_stays(local_output: Any) -> None:
    video = f"{clip_folder(OTHER)}/video-00000000.mp4"
    local_output.store.write(video, b"1")
    age(local_output, video, 8.0)
    found = find_waste(local_output.ledger, 7.0).waste
    local_output.store.write(f"{clip_folder(OTHER)}/meta.json", b"{}")
    remove(local_output.ledger, found)
    assert local_output.store.exists(video)


@pytest.mark.parametrize("meta", [b"{", b"[]", b"{}", b'{"video": {"path": "clips/gone.mp4"}}'])
def test_the_files_of_a_broken_clip_are_left_to_verify(local_output: Any, meta: bytes) -> None:
    folder = clip_folder(local_output.keys[0])
    local_output.store.write(f"{folder}/video-00000000.mp4", b"1")
    local_output.store.write(f"{folder}/meta.json", meta)
    assert paths(local_output, 0.0) == []


def test_the_command_tells_and_removes(local_output: Any, run_cli: Any) -> None:
    put_waste(local_output)
    before = local_output.tree()
    code, out, _ = run_cli("gc", local_output.url, "--dry-run")
    assert code == 0
    assert "nothing was removed" in out
    assert local_output.tree() == before
    rows = {line.split("  ")[0]: line.split()[-3:] for line in out.splitlines()}
    assert rows["state of committed clips"] == ["1", "5", "B"]
    assert rows["clips of killed attempts beside committed ones"] == ["2", "10", "B"]
    assert rows["all"][0] == "4"
    local_output.store.write("runs/live/config.yaml", b"")
    code, out, _ = run_cli("gc", local_output.url)
    assert code == 0
    assert "run live is running" in out
    assert paths(local_output) == []
    code, _, err = run_cli("gc", local_output.url, "--older-than-days", "-1")
    assert (code, err) == (1, "error: --older-than-days must be at least 0, got -1.0\n")


def test_what_cannot_be_written_is_judged_by_our_clock(
    local_output: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wanray.errors import StorageError
    from wanray.upkeep.output import store_now

    def refusing(store: Store, path: str, data: bytes) -> None:
        raise StorageError("read-only")

    assert abs(store_now(local_output.store) - time.time()) < 5
    assert local_output.store.names("work") == []
    monkeypatch.setattr(Store, "write", refusing)
    assert abs(store_now(local_output.store) - time.time()) < 5


def test_other_names_are_not_touched(local_output: Any) -> None:
    for path in ("clips/README.txt", "clips/ab/README.txt", "clips/ab/notes/README.txt"):
        local_output.store.write(path, b"mine")
        age(local_output, path, 99.0)
    assert paths(local_output) == []
