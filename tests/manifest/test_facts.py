"""What media are is remembered between plans, as long as they do not change."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from wanray.manifest import media
from wanray.manifest.columns import normalise_table
from wanray.manifest.media import MediaOpener


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "wanray" / "media.sqlite"


@pytest.fixture
def reads(monkeypatch):
    """URIs that were read."""
    seen = []
    real = media.read_media
    monkeypatch.setattr(media, "read_media", lambda uri, *rest: seen.append(uri) or real(uri, *rest))
    return seen


def picture(path, size, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(values).save(path, "BMP")
    return str(path)


def opened(*uris):
    """The media of rows with these images, by a new plan."""
    table, _ = normalise_table(pa.table({"image": list(uris)}))
    found, problems = MediaOpener(lambda sha256, content: "").open(table)
    assert problems == []
    return [found[row]["image"][0] for row in range(len(uris))]


def test_a_second_plan_reads_nothing_and_a_changed_file_is_read_again(tmp_path, reads):
    one, other = picture(tmp_path / "a.bmp", (40, 30)), picture(tmp_path / "b.bmp", (20, 10))
    first = opened(one, other, one)
    assert sorted(reads) == [one, other]
    assert opened(one, other, one) == first
    assert len(reads) == 2
    picture(one, (40, 30), seed=1)
    os.utime(one, ns=(0, 1_000))
    (changed, same) = opened(one, other)
    assert reads[2:] == [one]
    assert same == first[1]
    assert changed.sha256 != first[0].sha256


def test_stores_without_a_time_of_change_are_read_each_time(reads):
    import fsspec

    fsspec.filesystem("memory").pipe_file("/facts.bmp", Path(__file__).read_bytes())
    table, _ = normalise_table(pa.table({"image": ["memory://facts.bmp"]}))
    for _ in range(2):
        _, (problem,) = MediaOpener(lambda sha256, content: "").open(table)
        assert "it is no image of a known format" in problem.message
    assert len(reads) == 2, "what is wrong with a file is not remembered"


def test_objects_of_s3_are_known_by_their_etag(tmp_path, s3_url, reads):
    import fsspec

    content = Path(picture(tmp_path / "a.bmp", (40, 30))).read_bytes()
    with fsspec.open(f"{s3_url}/a.bmp", "wb") as file:
        file.write(content)
    assert opened(f"{s3_url}/a.bmp") == opened(f"{s3_url}/a.bmp")
    assert len(reads) == 1


@pytest.mark.parametrize("damage", ["no database", "a folder"])
def test_a_cache_that_cannot_be_used_is_done_without(tmp_path, cache, reads, caplog, damage):
    cache.parent.mkdir(parents=True)
    cache.write_text("no database" * 100) if damage == "no database" else cache.mkdir()
    uri = picture(tmp_path / "a.bmp", (40, 30))
    assert opened(uri) == opened(uri)
    assert len(reads) == 2
    assert "the next plan reads them again" in caplog.text


def test_urls_are_stored_without_their_secrets(tmp_path, cache, monkeypatch):
    path = picture(tmp_path / "a.bmp", (40, 30))
    monkeypatch.setattr(media, "read_media", lambda uri, *rest: Path(path).read_bytes())
    monkeypatch.setattr(media, "stamp_of", lambda uri, *rest: "1 etag")
    (first,) = opened("https://host/a.bmp?signature=SECRET")
    (second,) = opened("https://host/a.bmp?signature=OTHER")
    assert (first.uri, second.uri) == (
        "https://host/a.bmp?signature=SECRET",
        "https://host/a.bmp?signature=OTHER",
    )
    assert b"SECRET" not in cache.read_bytes()
