"""Sizing against the tables that the official code made (tests/golden/preprocess), and its own promises."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanray.sizing import area_size, cover_fit, cut_fit, reference_fit, vace_fit

TABLES = Path(__file__).parent / "golden" / "preprocess"
AREAS = {"480p": 480 * 832, "720p": 720 * 1280}
SIDES = st.integers(1, 5000)
RATES = st.sampled_from([8.0, 12.5, 15.0, 16.0, 24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60.0])


def rows(name: str) -> list[Any]:
    return json.loads((TABLES / name).read_text())["rows"]


@pytest.mark.parametrize("row", rows("image_sizes.json"), ids=lambda row: "x".join(map(str, row["image"])))
def test_images_get_the_official_sizes(row: dict[str, Any]) -> None:
    assert list(area_size(*row["image"], AREAS["480p"])) == row["i2v_480p"]
    assert list(area_size(*row["image"], AREAS["720p"])) == row["i2v_720p"]
    fit = cover_fit(*row["image"], 704 * 1280)
    official = row["ti2v_704p"]
    assert list(fit.size) == official["size"]
    assert list(fit.resize_to) == official["resize_to"]
    assert list(fit.crop_box) == official["crop_box"]


def test_videos_get_the_official_frames_and_sizes() -> None:
    for row in rows("vace_videos.json"):
        fit = vace_fit(*row["video"], row["frames"], row["fps"], AREAS[row["area"]])
        assert list(fit.size) == row["size"], row
        assert list(fit.resize_to) == row["resize_to"], row
        assert list(fit.crop_offset) == row["crop_offset"], row
        assert list(fit.frame_ids) == row["frame_ids"], row
        assert fit.official_fps == row["fps_out"], row
        uses_all = row["frame_ids"] == list(range(row["frames"]))
        assert fit.fps == (row["fps"] if uses_all else row["fps_out"]), row


def test_references_lie_where_the_official_code_puts_them() -> None:
    for row in rows("vace_references.json"):
        fit = reference_fit(*row["image"], *row["canvas"])
        assert list(fit.pasted_size) == row["pasted_size"], row
        assert list(fit.pasted_at) == row["pasted_at"], row
        assert fit.resized == row["resized"], row


@pytest.mark.parametrize("run", ["video_mask", "video_only_scale"])
def test_the_golden_runs_use_these_frames(run: str) -> None:
    said = json.loads((TABLES.parent / "vace-1.3B" / "runs" / run / "inputs.json").read_text())
    fit = vace_fit(*said.get("src_size"), said["src_frames"], said["src_fps"], said["area"])
    assert list(fit.frame_ids) == said["frame_ids"]
    assert list(fit.size) == said["output_size"]


@given(SIDES, SIDES, st.sampled_from(list(AREAS.values())))
def test_images_stay_within_the_area(width: int, height: int, max_area: int) -> None:
    size = area_size(width, height, max_area)
    assert size[0] * size[1] <= max_area
    assert size[0] % 16 == size[1] % 16 == 0
    fit = cover_fit(width, height, max_area)
    left, top, right, bottom = fit.crop_box
    assert fit.size[0] * fit.size[1] <= max_area
    assert (right - left, bottom - top) == fit.size
    assert 0 <= left <= right <= fit.resize_to[0]
    assert 0 <= top <= bottom <= fit.resize_to[1]


@given(SIDES, SIDES, st.integers(1, 2000), RATES, st.sampled_from(list(AREAS.values())))
def test_sampled_videos_fit_the_sequence(
    width: int, height: int, num_frames: int, fps: float, max_area: int
) -> None:
    fit = vace_fit(width, height, num_frames, fps, max_area)
    if 0 in fit.size:
        assert fit.frame_ids == ()
        return
    tokens = ((len(fit.frame_ids) - 1) // 4 + 1) * (fit.size[0] // 16) * (fit.size[1] // 16)
    assert tokens <= 21 * max_area // 256
    assert len(fit.frame_ids) % 4 == 1
    assert list(fit.frame_ids) == sorted(fit.frame_ids)
    assert 0 <= fit.frame_ids[0] <= fit.frame_ids[-1] < num_frames
    assert fit.crop_offset[0] + fit.size[0] <= fit.resize_to[0]
    assert fit.crop_offset[1] + fit.size[1] <= fit.resize_to[1]


@given(st.integers(1, 2000), RATES, RATES, st.sampled_from([1, 5, 81, None]))
def test_cut_videos_play_as_fast_as_their_source(
    num_frames: int, source_fps: float, fps: float, max_frames: int | None
) -> None:
    fit = cut_fit(832, 480, num_frames, source_fps, fps, AREAS["480p"], max_frames)
    assert fit.fps == fps
    assert len(fit.frame_ids) % 4 == 1
    assert len(fit.frame_ids) <= min(max_frames or 81, 81)
    assert fit.frame_ids[-1] < num_frames
    for number, source in enumerate(fit.frame_ids):
        assert -1e-3 <= number * source_fps / fps - source < 1 + 1e-3
    lasting = num_frames / source_fps * fps
    assert len(fit.frame_ids) > lasting - 5 or len(fit.frame_ids) == (max_frames or 81)


@pytest.mark.parametrize(
    ("num_frames", "source_fps", "fps", "frame_ids"),
    [
        (81, 16.0, 16.0, tuple(range(81))),
        (300, 30000 / 1001, 30000 / 1001, tuple(range(81))),
        (300, 60000 / 1001, 29.97002997, tuple(range(0, 162, 2))),
        (10, 24.0, 16.0, (0, 1, 3, 4, 6)),
        (4, 8.0, 16.0, (0, 0, 1, 1, 2)),
        (3, 16.0, 16.0, (0,)),
    ],
)
def test_cut_frames(num_frames: int, source_fps: float, fps: float, frame_ids: tuple[int, ...]) -> None:
    fit = cut_fit(832, 480, num_frames, source_fps, fps, AREAS["480p"])
    assert fit.frame_ids == frame_ids
    assert fit.size == (832, 480)


def test_a_cap_on_frames_leaves_the_size() -> None:
    fit = vace_fit(1280, 720, 100, 30, AREAS["480p"], max_frames=17)
    assert len(fit.frame_ids) == 17
    assert (fit.frame_ids[0], fit.frame_ids[-1]) == (0, 99)
    assert fit.size == vace_fit(1280, 720, 100, 30, AREAS["480p"]).size


def test_the_rate_of_a_video_used_whole_is_its_own() -> None:
    fit = vace_fit(832, 480, 81, 16, AREAS["480p"])
    assert fit.fps == 16
    assert fit.official_fps == pytest.approx(16.0994, abs=1e-4)


def test_small_videos_may_be_longer() -> None:
    assert len(vace_fit(416, 240, 200, 16, AREAS["480p"]).frame_ids) == 197


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (15, 15)])
def test_extreme_sizes_give_a_side_of_zero(size: tuple[int, int]) -> None:
    assert 0 in vace_fit(*size, 81, 16, AREAS["480p"]).size
