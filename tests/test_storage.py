import errno
import os
import pickle
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wanray.errors import ConfigError, StorageError
from wanray.storage import Store
from wanray.storage import bucket as bucket_module
from wanray.storage import store as store_module


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.open(str(tmp_path / "out"))
    if request.param == "memory":
        return Store.open(f"memory://{uuid.uuid4().hex}/out")
    return Store.open(request.getfixturevalue("s3_url"))


@pytest.fixture(params=["local", "s3"])
def shared_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store that other processes see too."""
    if request.param == "local":
        return Store.open(str(tmp_path / "out"))
    return Store.open(request.getfixturevalue("s3_url"))


def test_write_replaces_what_read_returns(store: Store) -> None:
    store.write("a/b/object", b"first")
    store.write("a/b/object", b"second")
    assert store.read("a/b/object") == b"second"


def test_reading_what_is_absent_raises_file_not_found(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("a/b/object")


def test_create_keeps_what_is_there(store: Store) -> None:
    assert store.create("a/object", b"first")
    assert not store.create("a/object", b"second")
    assert store.read("a/object") == b"first"


def test_exists_is_for_objects_only(store: Store) -> None:
    store.write("a/object", b"")
    assert store.exists("a/object")
    assert not store.exists("a")
    assert not store.exists("a/other")


def test_names_and_find_see_each_others_writes(store: Store) -> None:
    assert store.names("a") == store.find("a") == []
    for path in ("a/2", "a/1", "a/b/c/3", "ab/4"):
        store.write(path, b"x")
    assert store.names("a") == ["1", "2", "b"]
    assert store.find("a") == ["a/1", "a/2", "a/b/c/3"]
    assert store.find("") == ["a/1", "a/2", "a/b/c/3", "ab/4"]


def test_deleted_objects_are_gone_and_may_be_deleted_again(store: Store) -> None:
    store.write("a/object", b"x")
    store.delete("a/object")
    store.delete("a/object")
    assert not store.exists("a/object")
    assert store.find("a") == []


def test_sizes_are_those_of_what_is_found(store: Store) -> None:
    assert store.sizes("a") == {}
    store.write("a/2", b"xy")
    store.write("a/b/1", b"")
    store.write("c", b"x")
    assert store.sizes("a") == {"a/2": 2, "a/b/1": 0}
    assert list(store.sizes("")) == store.find("")


def test_stats_are_sizes_and_times_of_what_is_found(store: Store) -> None:
    assert store.stats("a") == {}
    store.write("a/2", b"xy")
    store.write("a/b/1", b"")
    store.write("c", b"x")
    stats = store.stats("a")
    assert {path: size for path, (size, _) in stats.items()} == store.sizes("a")
    for path, (_, modified_s) in stats.items():
        assert 0 <= modified_s - store.modified(path) < 1  # a bucket's `modified` knows whole seconds
    assert list(store.stats("")) == store.find("")


def test_modified_is_when_the_object_was_last_put(store: Store) -> None:
    for path in ("a/object", "a"):
        with pytest.raises(FileNotFoundError):
            store.modified(path)
    store.write("a/object", b"x")
    assert abs(store.modified("a/object") - time.time()) < 5
    with pytest.raises(FileNotFoundError):
        store.modified("a")


def test_check_leaves_nothing_behind(store: Store) -> None:
    assert store.check()
    assert store.find("") == []


def test_a_pickled_store_opens_the_same_place(store: Store) -> None:
    store.write("object", b"x")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.url == store.url
    assert copy.read("object") == b"x"


def test_of_racing_creates_exactly_one_wins(shared_store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        wins = list(pool.map(lambda n: shared_store.create("object", b"%d" % n), range(16)))
    assert wins.count(True) == 1
    assert shared_store.read("object") == b"%d" % wins.index(True)
    assert shared_store.names("") == ["object"]


def test_objects_larger_than_one_part_arrive_whole(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "_PART_BYTES", 5 << 20)
    data = bytes(range(256)) * (12 << 12)
    store = Store.open(s3_url)
    assert store.create("object", data)
    assert store.read("object") == data
    assert not store.create("object", data[1:] + b"x")
    assert store.read("object") == data
    store.write("object", data[:-1])
    assert store.sizes("") == {"object": len(data) - 1}


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store.open("out").url == str(tmp_path / "out")
    assert Store.open(f"file://{tmp_path}/out").uri("a") == f"{tmp_path}/out/a"


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write("a/object", b"x")
    (tmp_path / "a" / ".unfinished-0").write_bytes(b"half")
    assert store.names("a") == ["object"]
    assert store.find("a") == ["a/object"]


def test_a_folder_goes_with_its_last_object(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "out"))
    for path in ("a/b/1", "a/b/c/2", "a/3", "4"):
        store.write(path, b"x")
    store.delete("a/b/c/2")
    assert store.names("a/b") == ["1"]
    store.delete("a/b/1")
    assert store.names("a") == ["3"]
    store.delete("a/3")
    store.delete("4")
    assert (tmp_path / "out").is_dir()
    assert store.names("") == []


def test_writers_survive_a_folder_that_vanishes_under_them(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "out"))

    def work(worker: int) -> None:
        for number in range(200):
            path = f"work/frames/{worker}-{number}"
            (store.write if number % 2 else store.create)(path, b"x")
            store.delete(path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert store.names("") == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    store = Store.open(str(tmp_path / "out"))
    with pytest.raises(StorageError, match="its disk or quota is full: make room there"):
        store.write("a/object", b"x")
    with pytest.raises(StorageError, match=f"cannot create {store.url}/a/object: .*full"):
        store.create("a/object", b"x")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        store = Store.open(str(tmp_path))
        store.write("a/object", b"x")
        for put in (store.write, store.create):
            with pytest.raises(StorageError, match="its disk or quota is full"):
                put("b/object", bytes(1 << 20))
        assert store.find("") == ["a/object"]
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert store.create("b/object", b"x")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_link_that_was_made_although_it_was_refused_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Path.hardlink_to

    def link_twice(self: Path, target: Path) -> None:
        link(self, target)  # as NFS does when the first answer is lost
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", link_twice)
    store = Store.open(str(tmp_path))
    assert store.create("object", b"x")
    assert not store.create("object", b"x")


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path))
    store.write("a/object", b"x")

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    for listing in (store.names, store.find, store.sizes, store.stats):
        with pytest.raises(StorageError, match=r"cannot list .*/a: PermissionError"):
            listing("a")


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = Store.open(str(tmp_path / "file" / "out"))
    with pytest.raises(
        StorageError, match=r"cannot create .*file/out/work/probe-.*NotADirectoryError.*; check"
    ):
        store.check()
    with pytest.raises(StorageError, match="cannot write"):
        store.write("object", b"x")


def test_wrong_and_missing_credentials_are_not_shown(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(StorageError, match="PermissionError") as refused:
        Store.open(s3_url).write("object", b"x")
    assert "not-the-secret" not in str(refused.value)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="NoCredentialsError"):
        Store.open(s3_url).create("object", b"x")


def test_an_unreachable_endpoint_is_named(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(store_module, "_WAITS_S", (0.01,))
    store = Store.open(s3_url)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9.* \(2 tries\); check that the store is there"):
        store.create("object", b"x")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9[^(]*; check that the store is there"):
        store.hurried().create("object", b"x")


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        Store.open("sftp://user:secret@host/out")
    assert "secret" not in str(refused.value)
