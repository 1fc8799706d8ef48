"""Which encoder of the PyAV build makes a codec, and how a VideoConfig is said in its options.

Options are such that equal frames give equal bytes on equal builds, whatever the machine.
"""

import os

from av.codec.codec import Codec, UnknownCodecError

from wanray.config.schema import VIDEO_CODECS, VIDEO_PRESETS, VideoConfig
from wanray.errors import ConfigError

NUM_THREADS = 2
"""Fixed: x264's and x265's bytes depend on it."""
AUDIO_ENCODERS = {"mp4": "aac", "webm": "libopus"}

_ENCODERS = {
    "h264": ("libx264",),
    "h265": ("libx265",),
    "av1": ("libsvtav1", "libaom-av1"),
    "vp9": ("libvpx-vp9",),
    "gif": ("gif",),
    "png": ("png",),
    "webp": ("libwebp_anim",),
}
"""Per codec the encoders that will do, the best first."""
USUAL_CRF = {"h264": 17, "h265": 20, "av1": 24, "vp9": 16}
"""Looks lossless: where luma comes as near to the frames (PSNR) as h264 at 17 does."""
_SPEED: dict[str, tuple[str, tuple[str, ...]]] = {
    "libx264": ("preset", VIDEO_PRESETS),
    "libx265": ("preset", VIDEO_PRESETS),
    "libsvtav1": ("preset", ("10", "10", "9", "8", "7", "6", "5", "4", "3")),
    "libaom-av1": ("cpu-used", ("8", "8", "8", "7", "6", "6", "5", "4", "3")),
    "libvpx-vp9": ("cpu-used", ("5", "5", "5", "5", "5", "4", "3", "2", "1")),
}
"""Per encoder the name of its option for speed, and its value for each of VIDEO_PRESETS."""
_FIXED = {
    # x265 writes its options into the stream, with what the CPU can do.
    "libx265": {"x265-params": f"log-level=error:info=0:pools={NUM_THREADS}:frame-threads={NUM_THREADS}"},
    "libsvtav1": {"svtav1-params": f"lp={NUM_THREADS}"},
}


def check_video(config: VideoConfig) -> None:
    """Raise ConfigError unless this build of PyAV has the encoders that `config` needs."""
    codecs = VIDEO_CODECS[config.format] or (config.format,)
    if find_encoder(config.codec_name) is None:
        present = ", ".join(codec for codec in codecs if find_encoder(codec)) or "none"
        encoders = " or ".join(_ENCODERS[config.codec_name])
        raise ConfigError(
            f"output.video.codec {config.codec_name} needs {encoders}, which this build of PyAV "
            f"lacks; of the codecs for {config.format} it has {present}"
        )
    if config.audio and not has_encoder(AUDIO_ENCODERS[config.format]):
        raise ConfigError(
            f"output.video.audio true needs {AUDIO_ENCODERS[config.format]} for {config.format}, which this "
            "build of PyAV lacks: set it to false"
        )


def find_encoder(codec: str) -> str | None:
    """The name of the encoder for a codec of VideoConfig, None where this build has none."""
    return next(filter(has_encoder, _ENCODERS[codec]), None)


def has_encoder(name: str) -> bool:
    """Whether this build has an encoder of FFmpeg's name `name`."""
    try:
        return Codec(name, "w").is_encoder
    except UnknownCodecError:
        return False


def encoder_options(encoder: str, config: VideoConfig) -> dict[str, str]:
    """FFmpeg's options of `encoder`; the bit rate is none of them."""
    # SVT-AV1 prints twenty lines per clip past FFmpeg's log, and reads only this.
    os.environ.setdefault("SVT_LOG", "1")
    name, values = _SPEED[encoder]
    options = {name: values[VIDEO_PRESETS.index(config.preset)]} | _FIXED.get(encoder, {})
    if config.bitrate_kbps is None:
        options["crf"] = str(USUAL_CRF[config.codec_name] if config.crf is None else config.crf)
    return options
