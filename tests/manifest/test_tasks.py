"""Which task a row is, and what it must and must not have for it."""

import pytest

from wanray.config.schema import DefaultsConfig
from wanray.manifest import Resolver, resolve
from wanray.manifest.arrays import table_of
from wanray.manifest.columns import normalise_table
from wanray.manifest.tasks import check_tasks, choose_tasks, takes
from wanray.records import Request
from wanray.registry import MODELS, TASKS, get_model

I, L, V, M = ({name: f"{name}.file"} for name in ("image", "last_image", "video", "mask"))  # noqa: E741
KEYS = {"key_images": ["a.png", "b.png"], "key_frames": [1, 2]}


def judged(model, *rows, default=None):
    """(tasks, `row column: message` of all problems) of rows given as dicts; no file is opened."""
    table, problems = normalise_table(table_of(list(rows)))
    assert problems == []
    tasks = choose_tasks(table, get_model(model), default)
    found = check_tasks(table, tasks, get_model(model))
    return tasks.to_pylist(), [f"{problem.row} {problem.column}: {problem.message}" for problem in found]


@pytest.mark.parametrize(
    ("model", "row", "default", "task"),
    [
        ("t2v-1.3b", {"prompt": "a"}, None, "t2v"),
        ("t2v-1.3b", {"num_frames": 1}, None, "t2v"),
        ("t2v-1.3b", {"task": "t2i"}, None, "t2i"),
        ("t2v-1.3b", {"prompt": "a"}, "t2i", "t2i"),
        ("t2v-1.3b", {"task": "t2v"}, "t2i", "t2v"),
        ("t2i-14b", {"prompt": "a"}, None, "t2i"),
        ("i2v-14b-720p", {"prompt": "a"}, None, "i2v"),
        ("i2v-14b-720p", I, None, "i2v"),
        ("flf2v-14b", I, None, "flf2v"),
        ("i2v-a14b", I, None, "i2v"),
        ("i2v-a14b", I | L, None, "flf2v"),
        ("i2v-a14b", L, None, "i2v"),
        ("i2v-a14b", I | L | {"task": "i2v"}, None, "i2v"),
        ("i2v-a14b", I | L, "i2v", "i2v"),
        ("ti2v-5b", {"prompt": "a"}, None, "t2v"),
        ("ti2v-5b", I, None, "i2v"),
        ("ti2v-5b", {"task": "ti2v"}, None, "t2v"),
        ("ti2v-5b", I | {"task": "ti2v"}, None, "i2v"),
        ("ti2v-5b", I, "ti2v", "i2v"),
        ("ti2v-5b", I | {"task": "t2v"}, "ti2v", "t2v"),
        ("ti2v-5b", {"task": "ti2v"}, "t2i", "t2v"),
        ("vace-14b", {"prompt": "a"}, None, "vace"),
        ("vace-14b", I | L, None, "vace"),
    ],
)
def test_task_of_a_row(model, row, default, task):
    assert judged(model, row, default=default)[0] == [task]


def test_each_row_has_its_own_task():
    rows = [{"prompt": "a"}, I, {"task": "t2i"}, {"task": "ti2v"}, I | {"task": "ti2v"}]
    assert judged("ti2v-5b", *rows) == (["t2v", "i2v", "t2i", "t2v", "i2v"], [])


@pytest.mark.parametrize(
    ("model", "row", "problems"),
    [
        ("i2v-14b-480p", {"prompt": "a"}, ["0 image: is required for task i2v: name a file"]),
        ("flf2v-14b", I, ["0 last_image: is required for task flf2v: name a file"]),
        ("flf2v-14b", L, ["0 image: is required for task flf2v: name a file"]),
        (
            "flf2v-14b",
            {"prompt": "a"},
            [
                "0 image: is required for task flf2v: name a file",
                "0 last_image: is required for task flf2v: name a file",
            ],
        ),
        ("ti2v-5b", {"task": "i2v"}, ["0 image: is required for task i2v: name a file"]),
        (
            "ti2v-5b",
            I | {"task": "t2v"},
            ["0 image: is not taken by task t2v: leave it out, or name another task"],
        ),
        (
            "ti2v-5b",
            I | {"task": "t2i", "max_area": 4096},
            [
                "0 image: is not taken by task t2i: leave it out, or name another task",
                "0 max_area: is not taken by task t2i: leave it out, or name another task",
            ],
        ),
        (
            "ti2v-5b",
            {"max_area": 4096},
            ["0 max_area: is not taken by task t2v: leave it out, or name another task"],
        ),
        (
            "i2v-a14b",
            I | L | {"task": "i2v"},
            ["0 last_image: is not taken by task i2v: leave it out, or name another task"],
        ),
        (
            "i2v-a14b",
            L,
            [
                "0 image: is required for task i2v: name a file",
                "0 last_image: is not taken by task i2v: leave it out, or name another task",
            ],
        ),
        (
            "i2v-a14b",
            I | {"task": "flf2v"},
            ["0 last_image: is required for task flf2v: name a file"],
        ),
        ("t2v-1.3b", {"task": "t2i", "num_frames": 5}, ["0 num_frames: must be 1 for task t2i, got 5"]),
        (
            "flf2v-14b",
            I | L | {"num_frames": 1},
            ["0 num_frames: must be at least 5 for task flf2v, got 1"],
        ),
        ("vace-1.3b", M, ["0 mask: needs a video in the same row: name one"]),
        (
            "vace-1.3b",
            {"video_sampling": "cut"},
            ["0 video_sampling: needs a video in the same row: name one"],
        ),
        (
            "vace-1.3b",
            {"key_images": ["a.png"]},
            ["0 key_images: needs key_frames in the same row: the frame of each image"],
        ),
        (
            "vace-1.3b",
            {"key_frames": [1]},
            ["0 key_frames: needs key_images in the same row: the image of each frame"],
        ),
        (
            "vace-1.3b",
            KEYS | {"key_frames": [1]},
            ["0 key_frames: must have one entry per image of key_images"],
        ),
        (
            "vace-1.3b",
            KEYS | {"key_frames": []},
            ["0 key_frames: must have one entry per image of key_images"],
        ),
        ("vace-1.3b", V | I, ["0 image: excludes video in the same row: keep one of them"]),
        (
            "vace-1.3b",
            V | L | KEYS,
            [
                "0 last_image: excludes video in the same row: keep one of them",
                "0 key_images: excludes video in the same row: keep one of them",
            ],
        ),
    ],
)
def test_broken(model, row, problems):
    assert judged(model, row)[1] == problems


@pytest.mark.parametrize(
    ("model", "row"),
    [
        ("t2v-1.3b", {"task": "t2i", "num_frames": 1}),
        ("i2v-14b-480p", I | {"num_frames": 1, "max_area": 4096}),
        ("flf2v-14b", I | L | {"num_frames": 5}),
        ("vace-1.3b", {"prompt": "a"}),
        ("vace-1.3b", V | M | {"video_sampling": "cut", "reference_images": ["r.png"], "context_scale": 0.5}),
        ("vace-1.3b", I | L | KEYS | {"reference_images": ["r.png"]}),
        ("vace-1.3b", V | {"video_sampling": None, "mask": None}),
    ],
)
def test_allowed(model, row):
    assert judged(model, row)[1] == []


def test_problems_name_their_rows():
    rows = [I, {"prompt": "a"}, I, {"prompt": "b"}]
    assert [problem[:7] for problem in judged("i2v-14b-480p", *rows)[1]] == ["1 image", "3 image"]


def test_takes_follows_the_registry():
    tasks = normalise_table(table_of([{"task": name} for name in TASKS]))[0]["task"].combine_chunks()
    for column in sorted({name for task in TASKS.values() for name in (*task.required, *task.optional)}):
        expected = [column in (*task.required, *task.optional) for task in TASKS.values()]
        assert takes(tasks, column).to_pylist() == expected


def test_every_task_of_every_model_is_chosen_by_its_name():
    for model in MODELS.values():
        for name in model.tasks:
            assert judged(model.name, {"task": name})[0] == [name]


# The same through defaults and sweep, where num_frames is not the row's own


def resolved(model, row, sweep=None, **defaults):
    """The requests, and the messages of the problems, of a row without media."""
    found = get_model(model)
    resolver = Resolver(
        model=found,
        model_json={"name": model, "digest": "d"},
        numerics={"mode": "official"},
        official=found.defaults,
        defaults=DefaultsConfig(**defaults),
        sweep=sweep or {},
        keep=lambda sha256, content: sha256,
    )
    (piece,) = resolve(iter([table_of([row])]), resolver)
    requests = [Request.from_json(text) for text in piece.requests["request"].to_pylist()]
    return requests, [str(problem) for problem in piece.problems]


def test_an_image_has_one_frame_whatever_the_config_says():
    rows = {"prompt": "a", "task": "t2i"}
    assert [item.num_frames for item in resolved("t2v-1.3b", rows, num_frames=9)[0]] == [1]
    assert [item.num_frames for item in resolved("t2i-14b", {"prompt": "a"})[0]] == [1]


def test_an_image_has_one_frame_whatever_is_swept():
    requests, problems = resolved("t2v-1.3b", {"prompt": "a", "task": "t2i"}, sweep={"num_frames": [5]})
    assert problems or [item.num_frames for item in requests] == [1]


def test_official_defaults_of_each_model_fit_its_first_task():
    for model in MODELS.values():
        task, frames = TASKS[model.tasks[0]], model.defaults.num_frames
        assert frames >= task.min_frames
        assert (frames - 1) % model.temporal_stride == 0


def test_what_only_some_tasks_have_is_not_in_the_key_of_others():
    ((found,), _) = resolved("ti2v-5b", {"prompt": "a"})
    assert (found.context_scale, found.video_sampling, found.inputs) == (None, None, {})
    ((found,), _) = resolved("vace-1.3b", {"prompt": "a"})
    assert (found.context_scale, found.video_sampling) == (1.0, None)
    ((found,), _) = resolved("vace-1.3b", {"prompt": "a"}, context_scale=0.25, video_sampling="cut")
    assert (found.context_scale, found.video_sampling) == (0.25, None)


def test_an_area_of_the_config_is_for_rows_with_an_image():
    ((found,), problems) = resolved("ti2v-5b", {"prompt": "a"}, max_area=4096)
    assert problems == []
    assert (found.width, found.height) == (1280, 704)
