"""Videos as FFmpeg reads them: the list of packets, and upright RGB frames.

Array suffixes: H height, W width, C channels.
"""

import ctypes
import io
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import cast

import av
import av._core
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from wanray.media.checks import MAX_VIDEO_PIXELS, check_num_frames, check_size, room_for
from wanray.media.info import VideoInfo

FORMATS = (
    "asf,av1,avi,dv,flv,gxf,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,"
    "vc1,wav,yuv4mpegpipe"
)
"""FFmpeg's names of what is read. It knows more, such as lists of files, drawings and texts."""
MAX_BUFFER_BYTES = 2**29
"""Most memory that FFmpeg may take at once; headers can ask for any amount."""
MAX_PACKETS = 1_000_000
"""Of video, sound and all else in one file."""
_MAX_FPS = 1000
_RATE_TOLERANCE = 0.1
"""A stated rate that is further from what the timestamps say is not believed."""
_VP8_SHOWN = 0x10
"""Bit of the first byte of a VP8 packet (RFC 6386, 9.1): others hold references that nobody sees."""

# PyAV has no name for it; its own module knows where FFmpeg's libraries lie.
ctypes.CDLL(av._core.__file__).av_max_alloc(ctypes.c_size_t(MAX_BUFFER_BYTES))


def probe_stream(data: bytes) -> VideoInfo:
    """As probe_video."""
    try:
        return _info(data)
    except av.FFmpegError as error:
        raise ValueError(f"it is no video, or damaged: {error.strerror}") from error


def stream_frames(data: bytes) -> Iterator[Callable[[], np.ndarray]]:
    """The frames in the order of presentation, each as a function that gives it as uint8 [H, W, 3].

    Raises:
        ValueError: the data are damaged there.
    """
    converter, number = VideoReformatter(), -1
    with _opened(data) as container:
        for number, frame in enumerate(container.decode(_video_stream(container))):
            if frame.is_corrupt:
                raise ValueError(f"it is damaged at frame {number}")
            yield partial(_upright_rgb, converter, frame)
    if number < 0:
        raise ValueError("it has no frames")


def _opened(data: bytes) -> InputContainer:
    # Playlists are refused the files and hosts that they name.
    options = {"protocol_whitelist": "none", "format_whitelist": FORMATS}
    return av.open(io.BytesIO(data), "r", options=options, metadata_errors="replace")


def _video_stream(container: InputContainer) -> VideoStream:
    """The first that is not the cover picture of some audio."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise ValueError("its video has no known codec")
            # a picture may grow behind the header
            stream.codec_context.options = {"max_pixels": str(MAX_VIDEO_PIXELS)}
            return stream
    raise ValueError("it has no video stream")


def _info(data: bytes) -> VideoInfo:
    with _opened(data) as container:
        stream = _video_stream(container)
        check_size(stream.width, stream.height, MAX_VIDEO_PIXELS)
        num_pixels = stream.width * stream.height
        times_s = _times(container, stream)
        check_num_frames(len(times_s))
        fps, has_audio = _rate(stream, times_s), bool(container.streams.audio)
    with room_for(num_pixels):
        height, width, _ = next(stream_frames(data))().shape
    return VideoInfo(
        width=width,
        height=height,
        num_frames=len(times_s),
        fps=fps,
        has_audio=has_audio,
        duration_s=len(times_s) / fps,
    )


def _times(container: InputContainer, stream: VideoStream) -> list[float]:
    """When each frame that will be seen starts, in seconds, in no order; NaN where nothing says it.

    Packets are counted because headers lie, and some formats have no number.
    """
    times_s: list[float] = []
    for number, packet in enumerate(container.demux()):
        if number > MAX_PACKETS:
            raise ValueError(f"it has more than the {MAX_PACKETS} packets that are allowed")
        if packet.stream_index != stream.index:
            continue
        if packet.is_corrupt:
            raise ValueError(f"it is cut off or damaged after {len(times_s)} frames")
        check_num_frames(max(1, len(times_s)))
        if packet.size and not packet.is_discard and not _is_hidden(stream, packet):
            start = packet.pts if packet.pts is not None else packet.dts
            times_s.append(math.nan if start is None else float(start * packet.time_base))
    return times_s


def _is_hidden(stream: VideoStream, packet: "Packet[Stream]") -> bool:
    return stream.codec_context.name == "vp8" and not bytes(packet)[0] & _VP8_SHOWN


def _rate(stream: VideoStream, times_s: list[float]) -> float:
    """Frames per second: what the header says, unless the timestamps tell another story."""
    stated = float(stream.average_rate or stream.guessed_rate or 0)
    duration_s = max(times_s) - min(times_s)
    measured = (len(times_s) - 1) / duration_s if duration_s > 0 else stated
    rate = stated if abs(stated - measured) <= _RATE_TOLERANCE * measured else measured
    if not 0 < rate <= _MAX_FPS:
        raise ValueError("it does not say how many frames there are per second")
    return rate


def _upright_rgb(converter: VideoReformatter, frame: VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3], by the frame's own matrix and range (BT.601, limited, where it names none).

    FFmpeg's default conversion: bit-equal to decord 0.6.0, through which the official code reads.
    """
    has_alpha = any(component.is_alpha for component in frame.format.components)
    rgb = converter.reformat(frame, format="rgba" if has_alpha else "rgb24")
    rgb_HWC = _over_white(rgb.to_ndarray()) if has_alpha else rgb.to_ndarray()
    matrix = cast(Mapping[str, Buffer], frame.side_data).get("DISPLAYMATRIX")
    return rgb_HWC if matrix is None else _turned(rgb_HWC, bytes(matrix))


def _over_white(rgba_HWC: np.ndarray) -> np.ndarray:
    alpha_HW1 = rgba_HWC[..., 3:].astype(np.uint16)
    return ((rgba_HWC[..., :3] * alpha_HW1 + 255 * (255 - alpha_HW1) + 127) // 255).astype(np.uint8)


def _turned(rgb_HWC: np.ndarray, matrix: bytes) -> np.ndarray:
    """Apply a display matrix (ISO/IEC 14496-12, 6.2.2), x' = a x + c y, y' = b x + d y, to quarter turns."""
    a, b, _, c, d = np.frombuffer(matrix, "<i4")[:5].tolist()
    if abs(a) < abs(b):
        rgb_HWC, a, d = rgb_HWC.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(rgb_HWC[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
