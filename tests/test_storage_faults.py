"""Stores that fail, lose answers or hear twice: what may pass is borne, exactly one create wins."""

import errno
import json
import logging
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import s3_proxy
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, SSLError
from s3fs.errors import translate_boto_error

from wanray.engine.ground import check_output
from wanray.errors import StorageError
from wanray.storage import Store, bucket
from wanray.storage import store as store_module
from wanray.storage.faults import is_transient, remedy_of

MIB = 1 << 20


@pytest.fixture
def proxy(s3_endpoint: str, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3_proxy.Proxy]:
    """A proxy where AWS_ENDPOINT_URL points; further tries follow at once, and only Store makes them."""
    monkeypatch.setattr(store_module, "_WAITS_S", (0.01,) * 5)
    monkeypatch.setitem(bucket._S3_REQUESTS["retries"], "total_max_attempts", 1)
    with s3_proxy.running(s3_endpoint, seed=7, slow_s=0.05) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def store(proxy: s3_proxy.Proxy, s3_url: str) -> Store:
    return Store.open(s3_url)


def test_everything_succeeds_while_every_fourth_request_fails(proxy: s3_proxy.Proxy, store: Store) -> None:
    proxy.faults.error_rate = 0.25
    paths = [f"a/{number}" for number in range(8)]
    for path in paths:
        store.write(path, path.encode())
        assert store.read(path) == path.encode()
        assert store.exists(path)
        assert time.time() - store.modified(path) < 60
    assert store.find("") == paths
    assert store.names("a") == [path[2:] for path in paths]
    for path in paths:
        store.delete(path)
    assert store.names("a") == []
    assert proxy.faults.counts["requests"] < proxy.faults.counts.total() - 8


@pytest.mark.parametrize("kinds", [("lost",), ("twice",), ("lost", "twice", "cut", "reset")])
def test_each_create_is_known_to_have_succeeded(
    proxy: s3_proxy.Proxy, store: Store, kinds: tuple[str, ...]
) -> None:
    proxy.faults.error_rate, proxy.faults.kinds = 0.4, kinds
    paths = [f"{number:02d}" for number in range(50)]
    assert [path for path in paths if not store.create(path, b"first")] == []
    assert [path for path in paths[:10] if store.create(path, b"second")] == []
    proxy.faults.error_rate = 0
    assert store.names("") == paths
    assert {store.read(path) for path in paths} == {b"first"}


def test_creates_that_botocore_sends_again_are_known_too(
    proxy: s3_proxy.Proxy, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bucket._S3_REQUESTS["retries"], "total_max_attempts", 2)
    proxy.faults.error_rate, proxy.faults.kinds = 0.4, ("lost", "twice")
    store = Store.open(s3_url)
    assert [path for path in "abcde" if not store.create(path, b"first")] == []
    assert [path for path in "abcde" if store.create(path, b"second")] == []


def test_of_racing_creates_exactly_one_wins_under_faults(proxy: s3_proxy.Proxy, store: Store) -> None:
    proxy.faults.error_rate = 0.3
    for path in ("a", "b", "c"):
        with ThreadPoolExecutor(16) as pool:
            wins = list(pool.map(lambda n, path=path: store.create(path, b"%d" % n), range(16)))
        assert wins.count(True) == 1
        assert store.read(path) == b"%d" % wins.index(True)


def test_large_objects_arrive_whole(
    proxy: s3_proxy.Proxy, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_PART_BYTES", 5 * MIB)
    monkeypatch.setitem(bucket._S3_REQUESTS["retries"], "total_max_attempts", 2)
    data = bytes(range(256)) * (11 * MIB // 256)
    store = Store.open(s3_url)
    proxy.faults.error_rate = 0.15
    assert store.create("created", data)
    store.write("written", data)
    assert store.read("created") == store.read("written") == data


def test_an_upload_in_parts_that_fails_leaves_no_object(
    proxy: s3_proxy.Proxy, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_PART_BYTES", 5 * MIB)
    store = Store.open(s3_url)

    def fail_parts(faults: s3_proxy.Faults) -> str | None:
        faults.counts["requests"] += 1
        return "internal" if faults.counts["requests"] > 2 else None

    monkeypatch.setattr(s3_proxy.Faults, "draw", fail_parts)
    with pytest.raises(StorageError, match=r"cannot write .*/object: .*internal error"):
        store.write("object", bytes(11 * MIB))
    monkeypatch.setattr(s3_proxy.Faults, "draw", lambda faults: None)
    assert store.names("") == []


@pytest.mark.parametrize("kind", ["slow_down", "internal", "reset"])
def test_what_does_not_pass_ends_within_the_bound(proxy: s3_proxy.Proxy, store: Store, kind: str) -> None:
    proxy.faults.error_rate, proxy.faults.kinds = 1, (kind,)
    for call in (store.exists, store.read, store.names, store.find, store.delete, store.modified):
        proxy.faults.counts.clear()
        with pytest.raises(
            StorageError, match=rf"{store.url}/a.* \(6 tries\); check that the store is there"
        ):
            call("a")
        assert proxy.faults.counts["requests"] <= 12  # aiohttp sends again when a used connection is reset
    with pytest.raises(StorageError, match=rf"cannot create {store.url}/work/probe-.* \(3 tries\)"):
        store.check()


def test_the_bounds_are_those_promised() -> None:
    assert sum(store_module._WAITS_S) <= 25
    assert sum(store_module._WAITS_S[: store_module._NUM_CHECK_WAITS]) <= 5
    assert bucket._S3_REQUESTS["retries"]["total_max_attempts"] == 2


@pytest.mark.slow
def test_a_render_to_a_store_that_is_not_there_ends_soon(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tiny, tmp_path: Path, run_cli
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, _, err = run_cli("render", write_config(tmp_path, tiny("t2v-1.3b"), s3_url))
    assert code == 3
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9/' in err
    assert "(3 tries); check that the store is there (AWS_ENDPOINT_URL)" in err


def test_what_cannot_pass_is_not_tried_again(proxy: s3_proxy.Proxy, store: Store, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("a")
    assert proxy.faults.counts["requests"] == 1
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    proxy.faults.counts.clear()
    with pytest.raises(StorageError, match=r"PermissionError(?!.*tries)"):
        Store.open(store.url).write("a", b"x")
    assert proxy.faults.counts["requests"] == 1


def test_a_store_without_conditional_create_is_noted(proxy: s3_proxy.Proxy, store: Store) -> None:
    assert store.check()
    assert check_output(store) == []
    proxy.faults.lax = True
    assert not store.check()
    assert check_output(store) == [
        f"{store.url} ignores create-if-absent: two jobs at once may commit a clip twice"
    ]


@pytest.mark.slow
def test_the_plan_of_a_render_notes_it(
    proxy: s3_proxy.Proxy, s3_url: str, tiny, tmp_path: Path, run_cli
) -> None:
    proxy.faults.lax = True
    code, out, _ = run_cli("render", write_config(tmp_path, tiny("t2v-1.3b"), s3_url))
    assert code == 0
    assert f"note       {s3_url} ignores create-if-absent" in out


def test_credentials_are_in_no_message(
    proxy: s3_proxy.Proxy, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    proxy.faults.error_rate, proxy.faults.kinds = 1, ("slow_down", "reset", "internal")
    texts = []
    for secret in ("wanray-secret", "another-secret"):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        monkeypatch.setenv("AWS_SESSION_TOKEN", "token-secret")
        with pytest.raises(StorageError) as failed:
            Store.open(store.url).create("a", b"x")
        proxy.faults.error_rate = 0
        texts += [str(failed.value), repr(failed.value.__cause__), repr(store)]
    texts.append(caplog.text)
    assert "trying again to create" in caplog.text
    assert [text for text in texts if "-secret" in text] == []


def client_error(code: str, status: int) -> Exception:
    """As it comes from s3fs."""
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(response, "PutObject"))  # type: ignore[arg-type]


class HttpError(Exception):
    """As gcsfs has it: the status is its `code`."""

    def __init__(self, code: int) -> None:
        self.code = code


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (client_error("SlowDown", 503), True),
        (client_error("503", 503), True),
        (client_error("InternalError", 500), True),
        (client_error("InternalError", 200), True),
        (client_error("Throttling", 400), True),
        (client_error("TooManyRequests", 429), True),
        (client_error("RequestTimeout", 400), True),
        (client_error("ConditionalRequestConflict", 409), True),
        (client_error("NoSuchUpload", 404), True),
        (client_error("RequestTimeTooSkewed", 403), False),
        (client_error("AccessDenied", 403), False),
        (client_error("NoSuchBucket", 404), False),
        (client_error("InvalidBucketName", 400), False),
        (client_error("NotImplemented", 501), False),
        (client_error("XMinioStorageFull", 507), False),
        (client_error("QuotaExceeded", 403), False),
        (EndpointConnectionError(endpoint_url="http://store"), True),
        (SSLError(endpoint_url="http://store", error="certificate"), False),
        (NoCredentialsError(), False),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (HttpError(503), True),
        (HttpError(403), False),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
    ],
    ids=repr,
)
def test_what_may_pass(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_remedies() -> None:
    assert "NTP" in str(remedy_of(client_error("RequestTimeTooSkewed", 403)))
    for code, status in [
        ("XMinioStorageFull", 507),
        ("QuotaExceeded", 403),
        ("AdminBucketQuotaExceeded", 400),
    ]:
        assert "disk or quota is full" in str(remedy_of(client_error(code, status)))
    assert remedy_of(client_error("AccessDenied", 403)) is None


def test_the_proxy_as_a_process_of_its_own(
    s3_endpoint: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_WAITS_S", (0.01,) * 5)
    command = [sys.executable, s3_proxy.__file__, "--listen", "0", "--upstream", s3_endpoint, "--seed", "1"]
    command += ["--error-rate", "1", "--kinds", "slow_down,reset"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            store = Store.open(s3_url)
            with pytest.raises(StorageError):
                store.check()
            assert control(f"{url}/__faults__?error_rate=0.1&kinds=twice,lost&lax=1")["lax"]
            assert not control(f"{url}/__faults__?error_rate=0&lax=0")["lax"]
            assert store.check()
        finally:
            process.kill()


def control(url: str) -> dict[str, object]:
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5) as answer:
        return json.load(answer)


def write_config(folder: Path, checkpoint: Path, output_url: str) -> Path:
    """A render of one tiny clip to `output_url`."""
    (folder / "rows.jsonl").write_text('{"prompt": "a cat"}\n')
    settings = {
        "manifest": str(folder / "rows.jsonl"),
        "output": {"url": output_url},
        "model": {"path": str(checkpoint)},
        "engine": "local",
        "numerics": {"dtype": "float32"},
        "defaults": {"size": "64x64", "num_frames": 5, "steps": 2},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(settings))
    return path
