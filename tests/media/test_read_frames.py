"""Videos: what is in them, their frames, and what happens to those that are none."""

import hashlib
import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from wanray.errors import InputError
from wanray.media import checks, probe_video, read_frames, stream

Encode = Callable[..., bytes]
RUNS = Path(__file__).parents[1] / "golden" / "vace-1.3B" / "runs"
ALL = range(7)


def every_frame(data: bytes) -> np.ndarray:
    return np.stack(list(read_frames(data, range(probe_video(data).num_frames))))


@pytest.mark.parametrize(
    ("run", "name"),
    [("video_mask", "src_video"), ("video_mask", "src_mask"), ("video_only_scale", "src_video")],
)
def test_golden_videos_have_the_official_pixels(run: str, name: str) -> None:
    said = json.loads((RUNS / run / "inputs.json").read_text())
    data = (RUNS / run / f"{name}.mp4").read_bytes()
    info = probe_video(data)
    assert [info.width, info.height] == said["src_size"]
    assert (info.num_frames, info.fps) == (said["src_frames"], said["src_fps"])
    assert hashlib.sha256(every_frame(data).tobytes()).hexdigest() == said[f"{name}_rgb24_sha256"]


@pytest.mark.parametrize("container", ["mp4", "matroska", "mov", "avi"])
def test_containers_with_and_without_a_number_of_frames(
    container: str, encode: Encode, clip_FHWC: np.ndarray
) -> None:
    data = encode(clip_FHWC, container)
    info = probe_video(data)
    assert (info.width, info.height, info.num_frames) == (16, 12, 7)
    assert info.fps == 16
    assert info.duration_s == pytest.approx(7 / 16)
    assert not info.has_audio
    np.testing.assert_array_equal(every_frame(data), clip_FHWC)


def test_a_fractional_rate(encode: Encode, clip_FHWC: np.ndarray) -> None:
    assert probe_video(encode(clip_FHWC, rate=Fraction(30000, 1001))).fps == 30000 / 1001


def test_audio_is_noticed(encode: Encode, clip_FHWC: np.ndarray) -> None:
    data = encode(clip_FHWC, "matroska", audio=True)
    assert probe_video(data).has_audio
    np.testing.assert_array_equal(every_frame(data), clip_FHWC)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_webm_with_hidden_reference_frames(codec: str, encode: Encode) -> None:
    moving = [np.full((48, 64, 3), 40, np.uint8) for _ in range(60)]
    for number, rgb_HWC in enumerate(moving):
        rgb_HWC[:, number : number + 4] = 220
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "100000"}
    data = encode(moving, "webm", codec, "yuv420p", options=options)
    assert probe_video(data).num_frames == 60
    frames_FHWC = every_frame(data).astype(int)
    assert abs(frames_FHWC - np.stack(moving)).mean() < 6


def test_frames_come_in_order_and_may_repeat(encode: Encode, clip_FHWC: np.ndarray) -> None:
    got = list(read_frames(encode(clip_FHWC), [1, 1, 4, 6, 6, 6]))
    np.testing.assert_array_equal(np.stack(got), clip_FHWC[[1, 1, 4, 6, 6, 6]])
    assert list(read_frames(encode(clip_FHWC), [])) == []


def test_the_same_bytes_give_the_same_pixels(encode: Encode, clip_FHWC: np.ndarray) -> None:
    data = encode(clip_FHWC, codec="libx264", pix_fmt="yuv420p", options={"crf": "23"})
    assert every_frame(data).tobytes() == every_frame(data).tobytes()


MATRICES = [
    (1, 0, 0, 1),
    (-1, 0, 0, 1),
    (-1, 0, 0, -1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, 1, -1, 0),
    (0, -1, -1, 0),
    (0, -1, 1, 0),
]


@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrices_turn_the_picture(
    matrix: tuple[int, int, int, int], encode: Encode, clip_FHWC: np.ndarray
) -> None:
    a, b, c, d = matrix
    data = bytearray(encode(clip_FHWC))
    start = data.index(b"tkhd") + 44  # the matrix of ISO/IEC 14496-12, 8.3.2, in version 0
    data[start : start + 20] = (np.array([a, b, 0, c, d]) * 65536).astype(">i4").tobytes()
    points = {(a * x + c * y, b * x + d * y): (x, y) for x in range(16) for y in range(12)}
    left, top = min(x for x, _ in points), min(y for _, y in points)
    width, height = (12, 16) if a == 0 else (16, 12)
    expected_HWC = np.zeros((height, width, 3), np.uint8)
    for (x, y), (from_x, from_y) in points.items():
        expected_HWC[y - top, x - left] = clip_FHWC[0, from_y, from_x]
    info = probe_video(bytes(data))
    assert (info.width, info.height) == (width, height)
    np.testing.assert_array_equal(next(read_frames(bytes(data), [0])), expected_HWC)


@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (9, 0.2627, 0.0593), (2, 0.299, 0.114)],
)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_colours_follow_matrix_and_range(
    matrix: int, red: float, blue: float, full: bool, encode: Encode
) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (4, 4, 3))
    rgb_HWC = np.kron(colours, np.ones((8, 8, 1))).astype(np.float64)
    luma = rgb_HWC @ [red, 1 - red - blue, blue]
    blueness = (rgb_HWC[..., 2] - luma) / (2 - 2 * blue)
    redness = (rgb_HWC[..., 0] - luma) / (2 - 2 * red)
    if not full:
        luma, blueness, redness = luma * 219 / 255 + 16, blueness * 224 / 255, redness * 224 / 255
    yuv = np.stack([luma, blueness + 128, redness + 128]).round().clip(0, 255).astype(np.uint8)
    data = encode(
        [yuv], "matroska", "libx264", "yuv444p", "yuv444p", colorspace=matrix, color_range=2 if full else 1
    )
    assert abs(every_frame(data)[0] - rgb_HWC).max() <= 2


def test_transparent_video_lies_on_white(encode: Encode) -> None:
    rgba_HWC = np.zeros((8, 8, 4), np.uint8)
    rgba_HWC[:4] = (200, 100, 0, 255)
    data = encode([rgba_HWC], "mov", "qtrle", "argb", "rgba", options={})
    frame_HWC = every_frame(data)[0]
    assert (frame_HWC[:4] == (200, 100, 0)).all()
    assert (frame_HWC[4:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_picture_is_a_video_of_one_frame(kind: str) -> None:
    file = io.BytesIO()
    Image.new("L", (20, 10), 255).save(file, kind)
    info = probe_video(file.getvalue())
    assert (info.width, info.height, info.num_frames, info.fps, info.has_audio) == (20, 10, 1, 16.0, False)
    first, second = read_frames(file.getvalue(), [0, 0])
    assert (first == 255).all()
    assert second.shape == (10, 20, 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_are_videos(kind: str) -> None:
    levels = [0, 255, 128]
    pictures = [Image.new("L", (20, 10), level).convert("RGB") for level in levels]
    file = io.BytesIO()
    more = {"lossless": True} if kind == "WEBP" else {}
    pictures[0].save(file, kind, save_all=True, append_images=pictures[1:], duration=[50, 50, 100], **more)
    info = probe_video(file.getvalue())
    assert (info.num_frames, info.fps, info.duration_s) == (3, 15.0, 0.2)
    assert every_frame(file.getvalue())[:, 0, 0, 0].tolist() == levels


def test_frames_beyond_the_end_are_missed(encode: Encode, clip_FHWC: np.ndarray) -> None:
    frames = read_frames(encode(clip_FHWC), [6, 7])
    next(frames)
    with pytest.raises(InputError, match="it ends before frame 7"):
        next(frames)


def damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0x5A for byte in data[middle : middle + 400]) + data[middle + 400 :]


def test_damage_is_noticed(encode: Encode, clip_FHWC: np.ndarray) -> None:
    with pytest.raises(InputError, match="damaged"):
        list(read_frames(damaged(encode(clip_FHWC)), ALL))


def test_an_mp4_that_is_cut_off(encode: Encode, clip_FHWC: np.ndarray) -> None:
    whole = encode(clip_FHWC)
    with pytest.raises(ValueError, match="it is no video, or damaged"):  # its index stands at the end
        probe_video(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        list(read_frames(whole[: len(whole) // 2], ALL))


def only_audio() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        output.mux(stream.encode(frame))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is no video"),
        (b"a text, not a video\n" * 100, "it is no video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "it is no video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n/etc/passwd\n#EXT-X-ENDLIST\n", "it is no video"),
        (only_audio(), "it has no video stream"),
    ],
    ids=["empty", "text", "concat", "playlist", "audio"],
)
def test_what_is_no_video_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        probe_video(data)
    with pytest.raises(InputError):
        list(read_frames(data, [0]))


def test_a_list_cannot_reach_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode: Encode, clip_FHWC: np.ndarray
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.mp4").write_bytes(encode(clip_FHWC))
    playlist = b"ffconcat version 1.0\nfile secret.mp4\n"
    with av.open(io.BytesIO(playlist)) as container:  # FFmpeg alone would follow it
        assert container.streams.video
    with pytest.raises(ValueError, match="it is no video"):
        probe_video(playlist)


def test_too_many_frames_are_refused(
    monkeypatch: pytest.MonkeyPatch, encode: Encode, clip_FHWC: np.ndarray
) -> None:
    monkeypatch.setattr(checks, "MAX_FRAMES", 6)
    with pytest.raises(ValueError, match="it has 7 frames, more than the 6"):
        probe_video(encode(clip_FHWC))


def test_too_many_pixels_are_refused(
    monkeypatch: pytest.MonkeyPatch, encode: Encode, clip_FHWC: np.ndarray
) -> None:
    monkeypatch.setattr(stream, "MAX_VIDEO_PIXELS", 16 * 12 - 1)
    with pytest.raises(ValueError, match="it has 16x12 pixels"):
        probe_video(encode(clip_FHWC))


def test_a_video_without_frames_is_refused(encode: Encode, clip_FHWC: np.ndarray) -> None:
    data = bytearray(encode(clip_FHWC))
    for box in (b"stsz", b"stts", b"stsc", b"stco"):  # ISO/IEC 14496-12, 8.7: counts of the sample table
        start = data.index(box) + (12 if box == b"stsz" else 8)
        data[start : start + 4] = bytes(4)
    with pytest.raises(ValueError, match="it has no frames"):
        probe_video(bytes(data))
