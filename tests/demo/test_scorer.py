"""The judge of the demo's clips, on clips whose truth is known."""

import itertools

import numpy as np
import pytest

from tools.demo_model.scenes import COLOURS, RADII, Scene, all_scenes, draw, split_scenes, words
from tools.demo_model.scorer import NOTHING, is_clean, look, psnr

FORMATS = ((64, 64, 9), (96, 64, 17))


def drawn(scene, form=FORMATS[0], seed=0):
    return draw(scene, *form, np.random.default_rng(seed))


def seen(frames):
    found = look(frames)
    return found.colour, found.shape, found.direction, found.background


def said(scene):
    return scene.colour, scene.shape, scene.direction, scene.background


@pytest.mark.parametrize("size", RADII)
@pytest.mark.parametrize("form", FORMATS)
def test_every_scene_is_told(form, size):
    rng = np.random.default_rng(1)
    for scene in all_scenes():
        sized = Scene(*said(scene), size)
        assert seen(draw(sized, *form, rng)) == said(scene), sized


def test_bytes_and_a_little_noise_change_nothing():
    rng = np.random.default_rng(2)
    for scene in all_scenes()[::7]:
        noisy = np.clip(drawn(scene) + rng.normal(0, 0.01, (9, 64, 64, 3)), 0, 1)
        assert seen((noisy * 255).astype(np.uint8)) == said(scene)


def test_backwards_is_the_other_direction():
    frames = drawn(Scene("red", "circle", "right", "blue"))
    assert look(frames[::-1]).direction == "left"


def test_a_shape_that_stands_still_has_no_direction():
    frames = drawn(Scene("red", "circle", "right", "blue"))
    assert look(np.repeat(frames[:1], 9, axis=0)).direction == NOTHING


def test_a_shape_that_changes_on_the_way_is_not_kept():
    circle, square = (drawn(Scene("red", shape, "down", "white", "big")) for shape in ("circle", "square"))
    assert look(np.concatenate([circle[:5], square[5:]])).shape == NOTHING


def test_a_shape_that_vanishes_is_nothing():
    frames = drawn(Scene("red", "circle", "right", "blue"))
    frames[4:] = frames[0, 0, 0]
    assert seen(frames) == (NOTHING, NOTHING, NOTHING, "blue")
    assert seen(np.full((9, 64, 64, 3), 0.5)) == (NOTHING, NOTHING, NOTHING, "gray")


def test_noise_is_told_as_nothing_of_a_kind():
    """Random pixels get by chance what a guess would: a score above that means something."""
    rng = np.random.default_rng(3)
    found = [look(rng.random((9, 64, 64, 3))) for _ in range(20)]
    assert all(each.direction == NOTHING for each in found)


def test_psnr():
    black, gray = np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.1)
    assert psnr(black, gray) == pytest.approx(20.0)
    assert psnr((gray * 255).astype(np.uint8), (gray * 255).astype(np.uint8)) == np.inf


def test_held_out_scenes_are_never_trained_on():
    trained, held_out = split_scenes()
    assert len(held_out) == 64
    assert set(trained) | set(held_out) == set(all_scenes())
    assert not set(trained) & set(held_out)
    for values in zip(*map(said, held_out), strict=True):
        assert len(set(values)) >= 3  # of every property there are several


def test_words_are_those_of_all_prompts():
    rng = np.random.default_rng(0)
    sized = [scene.of_size(size) for scene, size in itertools.product(all_scenes(), RADII)]
    prompts = [scene.some_prompt(rng) for scene in sized for _ in range(3)]
    assert set(words()) == set(" ".join(prompts).split())
    assert set(COLOURS) <= set(words())


def test_prompts_are_english():
    assert Scene("red", "circle", "right", "blue").prompt == "a red circle moving right on a blue background"
    assert Scene("orange", "square", "up", "gray").prompt == "an orange square moving up on a gray background"
    assert Scene("orange", "square", "up", "gray", "big").prompt.startswith("a big orange square")


def test_the_shape_stays_in_the_picture():
    rng = np.random.default_rng(4)
    for scene in all_scenes()[::5]:
        if scene.shape == "triangle":
            continue  # its tips may touch the edge
        frames = draw(Scene(*said(scene), "big"), 96, 64, 9, rng)
        background = np.median(frames[0].reshape(-1, 3), axis=0)
        edges = (frames[:, [0, -1]], frames[:, :, [0, -1]])
        assert all(np.abs(edge - background).max() < 0.5 for edge in edges), scene


def test_a_clip_is_clean_of_anything_but_its_two_colours():
    scene = Scene("red", "circle", "right", "blue")
    clip = draw(scene, 64, 64, 9, np.random.default_rng(0))
    assert is_clean(clip, "red", "blue")
    assert is_clean((clip * 255).astype(np.uint8), "red", "blue")
    assert not is_clean(clip, "red", "white")
    small, large = clip.copy(), clip.copy()
    small[:, :8, :8] = (0.9, 0.9, 0.2)  # a sixty-fourth of each frame
    large[:, :16, :16] = (0.9, 0.9, 0.2)
    assert is_clean(small, "red", "blue")
    assert not is_clean(large, "red", "blue")
