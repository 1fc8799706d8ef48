"""What a manifest may name, and what it may not."""

from pathlib import Path

import pytest

from wanray.config import MediaConfig
from wanray.errors import InputError
from wanray.media import allowed, read_media

SCHEMES = [
    "ssh",
    "sftp",
    "smb",
    "ftp",
    "github",
    "git",
    "reference",
    "local",
    "data",
    "memory",
    "dir",
    "dask",
]
SCHEMES += ["filecache", "jupyter", "webhdfs", "asynclocal", "FILE", "S3", "c"]
REFUSED = [
    "simplecache::s3://bucket/a.png",
    "zip://a.png::s3://bucket/a.zip",
    "://x/a.png",
    " s3://x/a.png",
    "https://host/a::file:///etc/passwd",
    *(f"{scheme}://x/a.png" for scheme in SCHEMES),
]


@pytest.mark.parametrize("uri", REFUSED)
def test_what_nobody_allowed_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="not allowed"):
        read_media(uri, rules=MediaConfig())


@pytest.mark.parametrize("uri", ["/a.png", "a::b.png", "file:///a.png", "s3://b/a.png", "https://h/a.png"])
def test_usual_names_pass_as_they_are(uri: str) -> None:
    assert allowed(uri, MediaConfig()) == uri


def test_a_scheme_can_be_added_and_taken_away() -> None:
    assert allowed("memory://a.png", MediaConfig(allow_schemes=["memory"]))
    for uri in ("/a.png", "file:///a.png"):
        with pytest.raises(InputError, match=r"scheme file is not allowed.*media\.allow_schemes"):
            allowed(uri, MediaConfig(allow_schemes=["s3"]))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `in.png`, beside `secret.png`."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "in.png").write_bytes(b"in")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "root-beside").mkdir()
    (tmp_path / "root-beside" / "a.png").write_bytes(b"secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def test_files_below_a_root_are_read_and_others_not(root: Path) -> None:
    rules = MediaConfig(allow_roots=["/nowhere", str(root)])
    (root / "out.png").symlink_to(root.parent / "secret.png")
    (root / "up").symlink_to(root.parent)
    (root / "round.png").symlink_to(root / "in.png")
    (root / "loop").symlink_to(root / "loop")
    for name in ("in.png", "round.png", "../root/in.png", "up/root/in.png"):
        assert read_media(f"{root}/{name}", rules=rules) == b"in"
        assert read_media(f"file://{root}/{name}", rules=rules) == b"in"
    outside = ["out.png", "up/secret.png", "../secret.png", "../root-beside/a.png"]
    names = [f"{prefix}{root}/{name}" for name in outside for prefix in ("", "file://", "file:")]
    for name in [*names, "file://~/secret.png", "/etc/passwd", "/proc/self/environ", str(root.parent)]:
        with pytest.raises(InputError, match=r"outside .*media\.allow_roots"):
            read_media(name, rules=rules)
    for name in ("loop", "a\0b", "x" * 5000):
        with pytest.raises(InputError):
            read_media(f"{root}/{name}", rules=rules)


def test_no_root_means_no_file_and_stores_are_no_files(root: Path) -> None:
    rules = MediaConfig(allow_roots=[])
    with pytest.raises(InputError, match="none is allowed"):
        read_media(str(root / "in.png"), rules=rules)
    assert allowed("s3://bucket/a.png", rules) == "s3://bucket/a.png"
