"""Which task each row is, and whether it has what that task needs and nothing that it would ignore."""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest.problems import Problem, broken
from wanray.manifest.rows import column, rows_where
from wanray.registry import TASKS, Model, Task

TOGETHER = (
    ("mask", ("video",), "needs a video in the same row: name one"),
    ("video_sampling", ("video",), "needs a video in the same row: name one"),
    ("key_images", ("key_frames",), "needs key_frames in the same row: the frame of each image"),
    ("key_frames", ("key_images",), "needs key_images in the same row: the image of each frame"),
)
"""(column, the others of which a row with it needs one, what to say)."""

APART = (("video", "image"), ("video", "last_image"), ("video", "key_images"))
"""Pairs of inputs of VACE that each tell all frames."""


def choose_tasks(table: pa.Table, model: Model, default: str | None) -> pa.Array:
    """The task of each normalised row: as given, else by its inputs, else the model's first.

    default: the config's, for rows that give none.
    """
    given = column(table, "task")
    if default is not None:
        given = given.fill_null(default)
    chosen = pc.if_else(pc.equal(given, model.alias), pa.scalar(None, pa.string()), given)
    for name in sorted(model.tasks, key=lambda name: -len(TASKS[name].required)):
        named = pc.if_else(has_all(table, TASKS[name].required), name, pa.scalar(None, pa.string()))
        chosen = pc.coalesce(chosen, named)
    return chosen.fill_null(model.tasks[0])


def has_all(table: pa.Table, names: tuple[str, ...]) -> pa.Array:
    """True for rows with a value in each of the columns."""
    everywhere = pa.repeat(pa.scalar(True), len(table))
    return reduce(pc.and_, (pc.is_valid(column(table, name)) for name in names), everywhere)


def takes(tasks: pa.Array, name: str) -> pa.Array:
    """True for rows whose task takes the column `name`."""
    takers = [task.name for task in TASKS.values() if name in (*task.required, *task.optional)]
    return pc.is_in(tasks, pa.array(takers, pa.string()))


def needs(tasks: pa.Array, name: str) -> pa.Array:
    """True for rows whose task cannot do without the column `name`."""
    return pc.is_in(tasks, pa.array([task.name for task in TASKS.values() if name in task.required]))


def check_tasks(table: pa.Table, tasks: pa.Array, model: Model) -> list[Problem]:
    """Every rule between a row's task and its inputs that is broken."""
    problems = _check_pairs(table)
    for name in model.tasks:
        task, rows = TASKS[name], pc.equal(tasks, name)
        problems += _missing(table, rows, task) + _ignored(table, rows, task, model)
        problems += _wrong_frames(table, rows, task)
    return problems


def _missing(table: pa.Table, rows: pa.Array, task: Task) -> list[Problem]:
    return [
        Problem(row, "", name, f"is required for task {task.name}: name a file")
        for name in task.required
        for row in rows_where(pc.and_(rows, pc.is_null(column(table, name))))
    ]


def _ignored(table: pa.Table, rows: pa.Array, task: Task, model: Model) -> list[Problem]:
    others = sorted(model.inputs - {*task.required, *task.optional})
    return [
        Problem(row, "", name, f"is not taken by task {task.name}: leave it out, or name another task")
        for name in others
        for row in rows_where(pc.and_(rows, pc.is_valid(column(table, name))))
    ]


def _wrong_frames(table: pa.Table, rows: pa.Array, task: Task) -> list[Problem]:
    frames = column(table, "num_frames")
    wrong = pc.less(frames, task.min_frames)
    rule = f"must be at least {task.min_frames} for task {task.name}"
    if task.max_frames is not None:
        wrong = pc.not_equal(frames, task.max_frames)
        rule = f"must be {task.max_frames} for task {task.name}"
    return [broken(row, "num_frames", rule, frames[row].as_py()) for row in rows_where(pc.and_(rows, wrong))]


def _check_pairs(table: pa.Table) -> list[Problem]:
    problems = []
    for name, others, says in TOGETHER:
        alone = pc.and_(pc.is_valid(column(table, name)), pc.invert(has_all(table, others)))
        problems += [Problem(row, "", name, says) for row in rows_where(alone)]
    for kept, other in APART:
        says = f"excludes {kept} in the same row: keep one of them"
        problems += [Problem(row, "", other, says) for row in rows_where(has_all(table, (kept, other)))]
    lengths = (pc.list_value_length(column(table, name)) for name in ("key_images", "key_frames"))
    says = "must have one entry per image of key_images"
    return problems + [Problem(row, "", "key_frames", says) for row in rows_where(pc.not_equal(*lengths))]
