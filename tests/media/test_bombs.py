"""Small files that unpack to much, and servers that never end: refused within bounds of memory and time."""

import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from wanray.errors import InputError
from wanray.media import probe_image, probe_video, read_media
from wanray.media import stream as stream_module

MOST_MIB = 64
Encode = Callable[..., bytes]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(height * (1 + 4 * width)) if width < 100 else b""))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def gif(width: int, num_frames: int) -> bytes:
    """Frames of one pixel on a large canvas."""
    start = saved(Image.new("P", (width, width)), "GIF")[:-1]
    control = b"\x21\xf9\x04\x04\x01\0\0\0"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x08\x02\0\x51\0"
    return start + (control + frame) * num_frames + b";"


def tiff(num_pages: int) -> bytes:
    data = b"II*\0\x08\0\0\0"
    tags = [(256, 9), (257, 9), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 9), (279, 81)]
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags)
    size = len(entries) + 4
    starts = [len(data) + size * (page + 1) for page in range(num_pages)]
    starts[-1] = 0
    return data + b"".join(entries + struct.pack("<I", start) for start in starts)


def packets(count: int, encode: Encode) -> bytes:
    """A video of so many packets of one byte."""
    with av.open(io.BytesIO(encode([np.zeros((16, 16, 3), np.uint8)], "matroska"))) as source:
        first = source.streams.video[0]
        file = io.BytesIO()
        with av.open(file, "w", format="matroska") as output:
            copy = output.add_stream_from_template(first)
            for number in range(count):
                packet = av.Packet(b"\0")
                packet.stream, packet.time_base = copy, first.time_base
                packet.pts = packet.dts = number
                output.mux(packet)
    return file.getvalue()


@pytest.fixture
def peak_mib() -> Callable[[], float]:
    """peak_mib() -> by how much the memory of this process has grown at most since the test began."""
    field = {name: _status(name) for name in ("VmRSS",)}
    Path("/proc/self/clear_refs").write_text("5")
    return lambda: _status("VmHWM") - field["VmRSS"]


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>'
SUBTITLES = b"".join(b"%d\n00:00:01,000 --> 00:00:02,000\nx\n\n" % number for number in range(50_000))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("probe", "data", "reason"),
    [
        (probe_image, png(60000, 60000), "60000x60000 pixels"),
        (probe_image, png(9, 9, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**28)))), "too large"),
        (probe_video, gif(5000, 2000), "2001 frames of 5000x5000"),
        (probe_video, gif(10, 200_000), "200001 frames"),
        (probe_image, gif(10, 200_000), "200001 frames"),
        (probe_video, saved(Image.new("P", (9, 9)), "GIF")[:6] + b"\xff" * 4 + bytes(99), "pixels|damaged"),
        (probe_video, SVG, "it is no video"),
        (probe_video, SUBTITLES, "it is no video"),
        (probe_video, b"#EXTM3U\n#EXTINF:3,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "it is no video"),
        (probe_video, bytes(2**24), "it is no video"),
    ],
    ids=["png", "png text", "gif canvas", "gif video", "gif", "gif header", "svg", "srt", "m3u8", "zeros"],
)
def test_bombs_are_refused(
    probe: Callable[[bytes], Any], data: bytes, reason: str, peak_mib: Callable[[], float]
) -> None:
    with pytest.raises(ValueError, match=reason):
        probe(data)
    assert peak_mib() < MOST_MIB


@pytest.mark.timeout(20)
def test_of_a_tiff_a_thousand_pages_are_counted() -> None:
    assert probe_image(tiff(100_000)).num_frames == 1000
    assert probe_image(tiff(3)).num_frames == 3


def test_packets_are_counted_only_so_far(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packets(3000, encode)
    monkeypatch.setattr(stream_module, "MAX_PACKETS", 1000)
    with pytest.raises(ValueError, match="more than the 1000 packets"):
        probe_video(data)


def test_a_header_that_promises_frames_gets_no_memory(
    encode: Encode, clip_FHWC: np.ndarray, peak_mib: Callable[[], float]
) -> None:
    data = bytearray(encode(clip_FHWC))
    for box, at in ((b"stsz", 8), (b"stsz", 12), (b"stts", 12), (b"stsc", 16)):
        start = data.index(box) + at  # ISO/IEC 14496-12, 8.7: every sample one byte, a thousand million
        data[start : start + 4] = struct.pack(">I", 1 if (box, at) == (b"stsz", 8) else 10**9)
    with pytest.raises(ValueError, match=r"it has no frames|damaged"):
        probe_video(bytes(data))
    assert peak_mib() < MOST_MIB


class _Endless(BaseHTTPRequestHandler):
    """/chunked: five pieces; /lies: says 1000 bytes; /endless: says nothing. The last two never end."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        if self.path == "/lies":
            self.send_header("Content-Length", "1000")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(206 if self.path == "/lies" else 200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        pieces = 5 if self.path == "/chunked" else 10**6
        try:
            for _ in range(pieces):
                self.wfile.write(bytes(70_000))
        except OSError:
            return


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endless) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_server_that_does_not_say_how_much_it_sends(server: str) -> None:
    assert read_media(f"{server}/chunked") == bytes(350_000)


@pytest.mark.parametrize("path", ["lies", "endless"])
def test_a_server_that_does_not_end(server: str, path: str, peak_mib: Callable[[], float]) -> None:
    with pytest.raises(InputError, match="more than the 4194304 bytes"):
        read_media(f"{server}/{path}", 2**22)
    assert peak_mib() < MOST_MIB
