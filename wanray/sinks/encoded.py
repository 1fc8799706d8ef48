"""What an encoder hands to the ledger: named files. Knows names and sums, not how frames become bytes."""

import hashlib
from dataclasses import dataclass

PREFIXES = ("video-", "image-", "frames-")
"""How the names of a clip's own files and folders start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A clip as bytes, ready to be stored."""

    files: dict[str, bytes]
    """Names relative to the clip's folder; all are written before the commit."""
    path: str
    """What `video.path` names, relative to the clip's folder: a file, or a folder of numbered files."""
    codec: str
    """h264, hevc, av1, vp9, gif, png or webp."""
    sha256: str
    """In hex, of the file; of a folder, of its files one after the other."""
    num_bytes: int
    num_frames: int


def encoded_file(stem: str, suffix: str, data: bytes, *, codec: str, num_frames: int) -> Encoded:
    """One file `<stem>-<sha8>.<suffix>`; attempts that differ do not overwrite each other."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"{stem}-{sha256[:8]}.{suffix}"
    return Encoded(
        files={path: data},
        path=path,
        codec=codec,
        sha256=sha256,
        num_bytes=len(data),
        num_frames=num_frames,
    )


def encoded_folder(files: list[bytes], *, codec: str) -> Encoded:
    """One file per frame, `frames-<sha8>/000000.<codec>` and so on."""
    sha = hashlib.sha256()
    for data in files:
        sha.update(data)
    path = f"frames-{sha.hexdigest()[:8]}"
    return Encoded(
        files={f"{path}/{index:06d}.{codec}": data for index, data in enumerate(files)},
        path=path,
        codec=codec,
        sha256=sha.hexdigest(),
        num_bytes=sum(map(len, files)),
        num_frames=len(files),
    )
