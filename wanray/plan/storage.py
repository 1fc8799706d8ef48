"""How large clips will be: as those before them, else by what is usual for the codec."""

from wanray.config import OutputConfig, VideoConfig
from wanray.plan.model import ShapeGroup
from wanray.plan.work import ClipBytes, Work
from wanray.registry import Model
from wanray.sinks.codecs import USUAL_CRF
from wanray.sinks.index import newest_rows
from wanray.storage import Store

USUAL_BITS = {"h264": 0.8, "h265": 0.5, "av1": 0.5, "vp9": 0.7, "gif": 5.0, "webp": 6.0, "png": 12.0}
"""Per pixel of a frame at that crf: an order of magnitude, for videos with some motion."""
CRF_PER_HALF = {"h264": 6, "h265": 6, "av1": 10, "vp9": 10}
"""So much more of it halves the size."""
NEWEST_PARTS = 8
"""Of the index: so many are read for the sizes of earlier clips."""
SOLVER_LATENTS = 4
"""Latents in a stored state: the clip's own, and the solver's history."""


def clip_bytes(group: ShapeGroup, fps: float, output: OutputConfig, work: Work) -> int:
    """Of a clip's video and, where they are kept, its latents."""
    latents = latent_bytes(group, work.model) if output.save_latents else 0
    return round(_video_bytes(group, fps, output.video, work.clip_bytes)) + latents


def earlier_clips(store: Store, video: VideoConfig) -> ClipBytes | None:
    """How large the newest clips of this format became; None where there are none.

    Raises:
        StorageError: the store cannot be reached.
    """
    columns = ["width", "height", "num_frames", "video", "bytes"]
    rows = newest_rows(store, columns, NEWEST_PARTS).to_pylist()
    same = [row for row in rows if row["num_frames"] > 1 and _is_of(row["video"], video.format)]
    num_pixels = sum(row["width"] * row["height"] * row["num_frames"] for row in same)
    if not num_pixels:
        return None
    return ClipBytes(per_pixel=sum(row["bytes"] for row in same) / num_pixels, num_clips=len(same))


def _is_of(path: str, video_format: str) -> bool:
    return "/frames-" in path if video_format == "png" else path.endswith(f".{video_format}")


def state_bytes(group: ShapeGroup, model: Model) -> int:
    """Of what is stored of a clip in work."""
    return SOLVER_LATENTS * latent_bytes(group, model)


def latent_bytes(group: ShapeGroup, model: Model) -> int:
    """Of the final latents in float32."""
    frames = (group.num_frames - 1) // model.temporal_stride + 1
    cells = (group.width // model.spatial_stride) * (group.height // model.spatial_stride)
    return 4 * model.latent_channels * frames * cells


def storage_words(output: OutputConfig, work: Work) -> str:
    """What the size of videos rests on."""
    video = output.video
    if video.bitrate_kbps is not None:
        return f"{video.bitrate_kbps} kbit/s"
    if work.clip_bytes is not None:
        mean = f"{8 * work.clip_bytes.per_pixel:.2g} bits per pixel"
        return f"{mean}, the mean of {work.clip_bytes.num_clips} clips of this output"
    return f"{_usual_bits(video):.2g} bits per pixel, usual for {video.codec_name}"


def _video_bytes(group: ShapeGroup, fps: float, video: VideoConfig, known: ClipBytes | None) -> float:
    if video.bitrate_kbps is not None and group.num_frames > 1:
        return video.bitrate_kbps * 1000 / 8 * group.num_frames / fps
    if group.num_frames == 1:
        return USUAL_BITS[video.image_format] / 8 * group.num_pixels
    per_pixel = known.per_pixel if known is not None else _usual_bits(video) / 8
    return per_pixel * group.num_pixels


def _usual_bits(video: VideoConfig) -> float:
    codec, usual = video.codec_name, USUAL_BITS[video.codec_name]
    if video.crf is None:
        return usual
    return usual * 0.5 ** ((video.crf - USUAL_CRF[codec]) / CRF_PER_HALF[codec])
