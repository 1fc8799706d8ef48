"""The weights digest follows contents, not places, and large files are hashed once."""

import os
import shutil

from wanray import digest
from wanray.digest import weights_digest


def test_a_copy_has_the_same_digest_and_any_change_another(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "copy")
    base = weights_digest(str(tiny("t2v-1.3b")))
    assert weights_digest(str(copy)) == base
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert weights_digest(str(copy)) != base


def test_large_files_are_read_once_until_they_change(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "CACHED_BYTES", 1)
    copy = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "copy")
    base = weights_digest(str(copy))
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    status, content = weights.stat(), weights.read_bytes()
    weights.write_bytes(bytes(len(content)))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weights_digest(str(copy)) == base, "the cache was not used"
    os.utime(weights)
    assert weights_digest(str(copy)) != base
