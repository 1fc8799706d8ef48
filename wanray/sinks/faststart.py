"""Moves an mp4's index (`moov`) to the front, in memory, so that players start before they have it all.

FFmpeg's own `+faststart` needs a file that it can open a second time. Boxes as in ISO/IEC 14496-12.
"""

from collections.abc import Iterator

_CONTAINERS = (b"trak", b"mdia", b"minf", b"stbl")
"""Boxes on the way from `moov` to the chunk offsets."""
_OFFSET_BYTES = {b"stco": 4, b"co64": 8}


def faststart(mp4: bytes) -> bytes:
    """`mp4`, whose `moov` stands last as the muxer leaves it, with `moov` behind `ftyp`. Below 4 GiB."""
    (*_, ftyp_end), *_, (kind, start, _) = _boxes(mp4, 0, len(mp4))
    assert kind == b"moov", f"moov must stand last, got {kind}"
    moov = bytearray(mp4[start:])
    _shift_offsets(moov, 8, len(moov), by=len(moov))
    return mp4[:ftyp_end] + moov + mp4[ftyp_end:start]


def _boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the boxes that follow each other from `start` to `end`."""
    while start < end:
        size = int.from_bytes(data[start : start + 4], "big")
        assert size >= 8, f"box of {size} bytes at {start}"
        yield bytes(data[start + 4 : start + 8]), start, start + size
        start += size


def _shift_offsets(moov: bytearray, start: int, end: int, by: int) -> None:
    """Add `by` to every chunk offset in the boxes between `start` and `end`."""
    for kind, box_start, box_end in _boxes(moov, start, end):
        if kind in _CONTAINERS:
            _shift_offsets(moov, box_start + 8, box_end, by)
        elif width := _OFFSET_BYTES.get(kind):
            # Size, kind, version and count, four bytes each, stand before the offsets.
            for place in range(box_start + 16, box_end, width):
                offset = int.from_bytes(moov[place : place + width], "big") + by
                moov[place : place + width] = offset.to_bytes(width, "big")
