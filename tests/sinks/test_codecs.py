import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from wanray.config.schema import VideoConfig
from wanray.errors import ConfigError
from wanray.sinks import codecs
from wanray.sinks.scheduling import TASKS
from wanray.sinks.video import check_video, encode_frames


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch):
    """Lets the build of PyAV have only these encoders."""

    def only(*names: str) -> None:
        monkeypatch.setattr(codecs, "has_encoder", names.__contains__)

    return only


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ({"format": "avi"}, "output.video.format must be one of mp4, webm, gif, png, webp, got 'avi'"),
        ({"codec": "vp9"}, "output.video.codec of mp4 must be one of h264, h265, av1, got 'vp9'"),
        ({"format": "webm", "codec": "h264"}, "output.video.codec of webm must be one of vp9, av1"),
        (
            {"format": "gif", "codec": "h264"},
            "output.video.codec must be left out with format gif, got 'h264'",
        ),
        ({"format": "png", "crf": 0}, "output.video.crf must be left out with format png, got 0"),
        (
            {"format": "webp", "bitrate_kbps": 9},
            "output.video.bitrate_kbps must be left out with format webp",
        ),
        ({"format": "gif", "audio": True}, "output.video.audio must be left out with format gif, got True"),
        ({"crf": 52}, r"output.video.crf must be 0 to 51, got 52 \(h264\)"),
        ({"codec": "av1", "crf": 64}, r"output.video.crf must be 0 to 63, got 64 \(av1\)"),
        ({"crf": -1}, "output.video.crf must be 0 to 51, got -1"),
        ({"bitrate_kbps": 0}, "output.video.bitrate_kbps must be at least 1, got 0"),
        ({"crf": 17, "bitrate_kbps": 900}, "output.video.crf 17 excludes output.video.bitrate_kbps"),
        ({"preset": "placebo"}, "output.video.preset must be one of ultrafast"),
        ({"image_format": "jpeg"}, "output.video.image_format must be one of png, webp, got 'jpeg'"),
    ],
)
def test_what_cannot_be_written_is_refused(video: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        VideoConfig(**video)


@pytest.mark.parametrize(
    ("video", "name"),
    [({}, "h264"), ({"format": "webm"}, "vp9"), ({"format": "gif"}, "gif"), ({"codec": "av1"}, "av1")],
)
def test_the_codec_left_out_is_the_formats_first(video: dict[str, Any], name: str) -> None:
    assert VideoConfig(**video).codec_name == name


def test_options_of_the_default_are_what_they_always_were() -> None:
    assert codecs.encoder_options("libx264", VideoConfig()) == {"crf": "17", "preset": "medium"}


@pytest.mark.parametrize(
    "video", [{}, {"codec": "h265"}, {"codec": "av1", "audio": True}, {"format": "webm"}, {"format": "gif"}]
)
def test_what_this_build_has_passes(video: dict[str, Any]) -> None:
    check_video(VideoConfig(**video))


def test_a_missing_encoder_is_named_with_those_that_are_there(build) -> None:
    build("libx264", "libaom-av1")
    check_video(VideoConfig())
    check_video(VideoConfig(codec="av1"))
    with pytest.raises(ConfigError) as error:
        check_video(VideoConfig(codec="h265"))
    assert str(error.value) == (
        "output.video.codec h265 needs libx265, which this build of PyAV lacks; of the codecs for mp4 it has "
        "h264, av1"
    )
    with pytest.raises(
        ConfigError, match=r"output.video.codec vp9 needs .* of the codecs for webm it has av1"
    ):
        check_video(VideoConfig(format="webm"))
    with pytest.raises(ConfigError, match=r"output.video.audio true needs aac for mp4"):
        check_video(VideoConfig(audio=True))
    build()
    with pytest.raises(ConfigError, match=r"output.video.codec gif needs gif, .* for gif it has none"):
        check_video(VideoConfig(format="gif"))


def test_an_encoder_of_another_name_does_as_well(build) -> None:
    build("libaom-av1")
    assert codecs.find_encoder("av1") == "libaom-av1"
    assert codecs.encoder_options("libaom-av1", VideoConfig(codec="av1")) == {"crf": "24", "cpu-used": "6"}


@pytest.mark.parametrize(
    ("format_", "codec"), [("mp4", "av1"), ("mp4", "h264"), ("mp4", "h265"), ("webm", "vp9")]
)
def test_encoders_leave_the_scheduling_of_threads_alone(format_: str, codec: str) -> None:
    """SVT-AV1 makes itself and its caller real-time where it runs as root; others would starve."""

    def policies() -> set[int]:
        return {os.sched_getscheduler(int(entry.name)) for entry in TASKS.iterdir()}

    before, seen = policies(), []

    def watched() -> Iterator[np.ndarray]:
        for frame in np.zeros((6, 64, 64, 3), np.uint8):
            seen.append(policies())
            yield frame

    encode_frames(watched(), 16.0, VideoConfig(format=format_, codec=codec, preset="veryfast"), {})
    assert [*seen, policies()] == [before] * 7
