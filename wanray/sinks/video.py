"""Frames become files: a movie that browsers play at once, or images. Nothing is stored here.

Frames are uint8 [height, width, 3], red, green, blue; sides of movies are even. They are taken one at a time:
what is held are encoded bytes and the few frames that an encoder looks ahead.
"""

import io
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from wanray.config.schema import VideoConfig
from wanray.sinks.audio import AudioSource, AudioTrack
from wanray.sinks.codecs import NUM_THREADS, check_video, encoder_options, find_encoder
from wanray.sinks.encoded import Encoded, encoded_file
from wanray.sinks.faststart import faststart
from wanray.sinks.images import encode_gif, encode_png_sequence, encode_still, encode_webp
from wanray.sinks.mux import mux_video, to_picture
from wanray.sinks.poster import MiddleFrame, encode_poster

__all__ = ["AudioSource", "Encoded", "MiddleFrame", "check_video", "encode_frames", "encode_poster"]

_BT709 = 1
"""ITU-T H.273's number for BT.709: primaries, transfer and matrix alike."""
_LIMITED = 1
"""FFmpeg's number for a luma range of 16-235."""


def encode_frames(
    frames: Iterable[np.ndarray],
    fps: float,
    config: VideoConfig,
    metadata: Mapping[str, str],
    *,
    still: bool = False,
    audio: AudioSource | None = None,
) -> Encoded:
    """These frames, all of one size, as `config` wants them; equal input gives equal bytes on equal builds.

    `still` makes an image of the one frame. `metadata` may hold `title` and `comment`, for mp4, webm and png
    stills. `audio` is heard if the config says so, the format holds it and the source has any.

    Raises:
        InputError: the audio source is no video that can be read.
    """
    rate = Fraction(fps).limit_denominator(1001)
    if still:
        return encode_still(frames, config.image_format, metadata)
    if config.format == "png":
        return encode_png_sequence(frames)
    if config.format == "gif":
        return encode_gif(frames, rate)
    if config.format == "webp":
        return encode_webp(frames, rate)
    return _encode_movie(frames, rate, config, metadata, audio if config.audio else None)


def _encode_movie(
    frames: Iterable[np.ndarray],
    rate: Fraction,
    config: VideoConfig,
    metadata: Mapping[str, str],
    audio: AudioSource | None,
) -> Encoded:
    """An mp4 with its index first, or a webm: yuv420p, BT.709."""
    file = io.BytesIO()
    with ExitStack() as stack:
        source = stack.enter_context(audio.open()) if audio else None
        container = stack.enter_context(av.open(file, "w", format=config.format, options=_muxing(config)))
        container.metadata.update(metadata)
        encoder = find_encoder(config.codec_name)
        assert encoder, f"no encoder for {config.codec_name}: call check_video first"
        stream = container.add_stream(encoder, rate=rate, options=encoder_options(encoder, config))
        assert isinstance(stream, VideoStream)
        _describe(stream, config)
        track = AudioTrack.add(container, source) if source else None
        num_frames = mux_video(container, stream, map(_to_yuv, frames))
        if track:
            track.mux(num_frames / rate)
    data = faststart(file.getvalue()) if config.format == "mp4" else file.getvalue()
    codec = "hevc" if config.codec_name == "h265" else config.codec_name
    return encoded_file("video", config.format, data, codec=codec, num_frames=num_frames)


def _muxing(config: VideoConfig) -> dict[str, str]:
    # Matroska numbers its tracks at random unless told not to.
    options = {"fflags": "+bitexact"} if config.format == "webm" else {}
    # Video waits in the muxer, encoded, until its length is known and audio can be cut and laid between.
    return options | ({"max_interleave_delta": "0"} if config.audio else {})


def _describe(stream: VideoStream, config: VideoConfig) -> None:
    stream.pix_fmt = "yuv420p"
    codec = stream.codec_context
    codec.thread_count = NUM_THREADS
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = _LIMITED
    if config.bitrate_kbps is not None:
        codec.bit_rate = config.bitrate_kbps * 1000
    if config.codec_name == "h265":
        codec.codec_tag = "hvc1"  # what Apple's players ask for


def _to_yuv(frame_HWC: np.ndarray) -> av.VideoFrame:
    # FFmpeg's default is BT.601, which players guess wrong from 720 lines upwards.
    return to_picture(frame_HWC).reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
