"""The weights digest follows contents, not places, and large files are hashed once."""

import os
import shutil
from pathlib import Path

from wanray import digest
from wanray.checkpoint import open_checkpoint

GOLDEN = Path(__file__).parent / "golden"


def weights_digest(path):
    return digest.weights_digest(open_checkpoint(str(path)))


def test_a_copy_has_the_same_digest_and_any_change_another(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "copy")
    base = weights_digest(tiny("t2v-1.3b"))
    assert weights_digest(copy) == base
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert weights_digest(copy) != base


def test_large_files_are_read_once_until_they_change(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "CACHED_BYTES", 1)
    copy = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "copy")
    checkpoint = open_checkpoint(str(copy))
    base = digest.weights_digest(checkpoint)
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    status, content = weights.stat(), weights.read_bytes()
    weights.write_bytes(bytes(len(content)))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest.weights_digest(checkpoint) == base, "the cache was not used"
    os.utime(weights)
    assert digest.weights_digest(checkpoint) != base


def test_every_file_that_decides_pixels_counts_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = shutil.copytree(GOLDEN / "i2v-14B/checkpoint", tmp_path / "copy")
    base = weights_digest(copy)
    (copy / "README.md").write_text("other words")
    (copy / "xlm-roberta-large/tokenizer.json").write_text("of the text half of CLIP, which nothing uses")
    assert weights_digest(copy) == base
    for name in ("google/umt5-xxl/tokenizer_config.json", "wanray_tiny.json", "config.json"):
        content = (copy / name).read_text()
        (copy / name).write_text(content + "\n")
        assert weights_digest(copy) != base, name
        (copy / name).write_text(content)
    assert weights_digest(copy) == base


def test_both_layouts_name_files_of_their_own_networks_only(tiny):
    for path in (tiny("t2v-1.3b"), GOLDEN / "t2v-A14B/checkpoint"):
        checkpoint = open_checkpoint(str(path))
        files = checkpoint.files()
        weights = {file for component in checkpoint.components() for file in component.files}
        assert weights <= set(map(str, files))
        assert len(files) == len(set(files))
