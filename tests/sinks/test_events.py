import threading
from pathlib import Path

import pytest

from wanray.errors import StorageError
from wanray.sinks.events import EventLog, read_events
from wanray.storage import Store

FOLDER = "runs/run-1/events"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "out"))


def test_events_come_back_in_order_with_their_fields(store: Store) -> None:
    log = EventLog(store, "run-1")
    for number in range(5):
        log.emit("step", key="猫", step=number)
    log.flush()
    read = list(read_events(store, "run-1"))
    assert [entry["step"] for entry in read] == list(range(5))
    assert {(entry["event"], entry["key"]) for entry in read} == {("step", "猫")}
    assert read[0]["ts"] <= read[-1]["ts"]


def test_every_flush_is_an_object_of_its_own(store: Store) -> None:
    log = EventLog(store, "run-1")
    for number in range(3):
        log.emit("step", step=number)
        log.flush()
        log.flush()
    assert store.names(FOLDER) == ["000000.jsonl", "000001.jsonl", "000002.jsonl"]


def test_nothing_is_stored_without_events(store: Store) -> None:
    EventLog(store, "run-1").flush()
    assert list(read_events(store, "run-1")) == []
    assert store.find("") == []


def test_a_resumed_run_goes_on_after_the_last_object(s3_url: str) -> None:
    store = Store.open(s3_url)
    for number in range(3):
        log = EventLog(store, "run-1")
        log.emit("started", attempt=number)
        log.flush()
        log.flush()
    assert store.names(FOLDER) == ["000000.jsonl", "000001.jsonl", "000002.jsonl"]
    assert [entry["attempt"] for entry in read_events(store, "run-1")] == [0, 1, 2]


def test_threads_lose_nothing_and_keep_their_own_order(store: Store) -> None:
    log = EventLog(store, "run-1")

    def work(worker: int) -> None:
        for number in range(200):
            log.emit("step", worker=worker, step=number)
            if number % 50 == 0:
                log.flush()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    read = list(read_events(store, "run-1"))
    assert [entry["ts"] for entry in read] == sorted(entry["ts"] for entry in read)
    for worker in range(4):
        assert [entry["step"] for entry in read if entry["worker"] == worker] == list(range(200))


def test_lines_that_could_not_be_stored_are_kept(tmp_path: Path) -> None:
    obstacle = tmp_path / "out"
    store = Store.open(str(obstacle))
    log = EventLog(store, "run-1")
    log.emit("started")
    obstacle.write_text("not a folder")
    with pytest.raises(StorageError):
        log.flush()
    obstacle.unlink()
    log.flush()
    assert [entry["event"] for entry in read_events(store, "run-1")] == ["started"]
