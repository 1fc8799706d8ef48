"""Bytes from local paths and URLs, and what is said of those that cannot be read."""

import hashlib
import os
from pathlib import Path

import fsspec
import pytest

import wanray.media
from wanray.errors import InfrastructureError, InputError
from wanray.media import digest, read_media, shown


def test_a_local_path_and_its_url(tmp_path: Path) -> None:
    file = tmp_path / "a picture #1.png"
    file.write_bytes(b"bytes")
    assert read_media(str(file)) == b"bytes"
    assert read_media(f"file://{file}") == b"bytes"


def test_any_store_of_fsspec() -> None:
    fsspec.filesystem("memory").pipe_file("/media/clip.mp4", b"bytes")
    assert read_media("memory://media/clip.mp4") == b"bytes"


def test_s3(s3_url: str) -> None:
    with fsspec.open(f"{s3_url}/clip.mp4", "wb") as file:
        file.write(b"bytes")
    assert read_media(f"{s3_url}/clip.mp4") == b"bytes"
    with pytest.raises(InputError, match="it does not exist"):
        read_media(f"{s3_url}/clip.mov")


def test_the_limit_is_exact(tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"12345")
    assert read_media(str(file), max_bytes=5) == b"12345"
    with pytest.raises(InputError, match="it has 5 bytes, more than the 4"):
        read_media(str(file), max_bytes=4)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("missing.png", "it does not exist"),
        ("folder", "it is a folder"),
        ("pipe", "it is no ordinary file"),
        ("nosuch://host/clip.mp4", "nosuch"),
        ("memory://missing.png", "it does not exist"),
        ("", "it is a folder"),
    ],
)
def test_what_cannot_be_read_says_why(
    uri: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    with pytest.raises(InputError, match=reason):
        read_media(uri)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a b/c#1.png", "/a b/c#1.png"),
        ("https://me:word@host/a.png?sig=x#y", "https://host/a.png"),
        ("s3://bucket/a.png", "s3://bucket/a.png"),
    ],
)
def test_shown_uris_have_no_secrets(uri: str, expected: str) -> None:
    assert shown(uri) == expected


def test_a_store_that_fails_is_nobodys_fault_and_keeps_its_secrets() -> None:
    with pytest.raises(InfrastructureError) as caught:
        read_media("http://me:password@127.0.0.1:9/clip.mp4?signature=secret")
    assert "http://127.0.0.1:9/clip.mp4" in str(caught.value)
    assert "password" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_digest_is_sha256() -> None:
    assert digest(b"bytes") == hashlib.sha256(b"bytes").hexdigest()


def test_public_names_are_sorted_and_there() -> None:
    names = wanray.media.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.lower() == name, name))
    assert all(hasattr(wanray.media, name) for name in names)
