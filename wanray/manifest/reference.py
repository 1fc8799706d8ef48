"""The columns of a manifest as a table of documentation.

Meaning, default and example stand here; types, tasks and rules are asked of the code that checks them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from wanray.manifest import values
from wanray.manifest.columns import COLUMNS
from wanray.manifest.tasks import APART, TOGETHER
from wanray.manifest.validate import EXCLUSIONS, INPUT_COLUMNS, RULES
from wanray.registry import MODELS, TASKS

OF_MODEL = "the model's"
"""Default of columns for which the official code has a value."""

TYPES = {
    values.identifier: "text, or a whole number",
    values.text: "text",
    values.integer: "whole number",
    values.real: "number",
    values.guidance: "number, or {high, low}",
    values.integers: "list of whole numbers",
    values.media: "URI, or {bytes, path}",
    values.medias: "list of URIs, or of {bytes, path}",
    values.loras: "list of {path, weight, expert}",
    values.tags: "object",
}
"""How the types of columns are called, by the function that converts a value."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be said of one column; the example is JSON."""

    meaning: str
    example: str
    default: str = "none"


ENTRIES: dict[str, Entry] = {
    "id": Entry(
        "Your name for the row, for meta.json, `--only` and failure records. Nothing checks that it is the "
        "only one.",
        '"cat-7"',
        "`row-0000007` for row 7, counted from 0",
    ),
    "prompt": Entry(
        "What to show. Blank for i2v-a14b, whose image tells enough, or where extension describes the image.",
        '"A red kite over a grey sea"',
        "required",
    ),
    "negative_prompt": Entry(
        'What to avoid. `""` means the official one too, `" "` means none (in `numerics.mode=diffusers` a '
        "text means what it says).",
        '"blurred, text"',
        OF_MODEL,
    ),
    "image": Entry("First frame.", '"s3://bucket/cat.png"', "none; i2v, flf2v: required"),
    "last_image": Entry("Last frame, of the aspect of `image`.", '"cat-end.png"', "none; flf2v: required"),
    "video": Entry("Source video; it decides frames, fps and aspect.", '"https://host/walk.mp4"'),
    "mask": Entry(
        "Video or image of the size of `video`, white where to generate.", '"walk-mask.mp4"', "all white"
    ),
    "video_sampling": Entry(
        "Which frames of `video` are used: `even` spreads them over all of it, as the official code does; "
        "`cut` takes them from its start at the clip's fps.",
        '"cut"',
        "`even`",
    ),
    "key_images": Entry("Images that the clip passes through.", '["a.png", "b.png"]'),
    "key_frames": Entry("Frame of each key image; negative ones count from the end.", "[0, -1]"),
    "reference_images": Entry("Subjects to take over, in order.", '["dog.png", "hat.png"]'),
    "audio": Entry("Speech, for models to come.", '"talk.wav"'),
    "pose_video": Entry("Poses, for models to come.", '"pose.mp4"'),
    "task": Entry("One of the model's tasks.", '"i2v"', "the inputs of the row tell"),
    "size": Entry("Width and height in pixels.", '"832x480"', OF_MODEL),
    "width": Entry("Pixels.", "832", OF_MODEL),
    "height": Entry("Pixels.", "480", OF_MODEL),
    "max_area": Entry(
        "Pixels of a frame; the clip takes its aspect from the first image or the source video, under this.",
        "399360",
        "width x height",
    ),
    "context_scale": Entry("Strength of the control branch.", "0.8", "1"),
    "num_frames": Entry(
        "Frames of the clip; of a source video at most so many.", "81", f"{OF_MODEL}, or the source's"
    ),
    "fps": Entry("Frames per second of the clip.", "16", f"{OF_MODEL}, or the source's speed"),
    "seed": Entry("Of the first noise.", "42", "derived from the rest of the request"),
    "seeds": Entry("A clip for each.", "[1, 2, 3]", "`seed` alone"),
    "steps": Entry("Denoise steps.", "40", OF_MODEL),
    "shift": Entry("Flow shift: higher spends more steps on high noise.", "5.0", OF_MODEL),
    "guidance": Entry(
        "Scale of classifier-free guidance; at 1 for both experts the negative prompt is not computed.",
        '{"high": 4.0, "low": 3.0}',
        OF_MODEL,
    ),
    "solver": Entry("How the sampling equation is solved.", '"dpm++"', OF_MODEL),
    "lora": Entry("LoRAs, for a version to come.", '[{"path": "style.safetensors", "weight": 0.8}]'),
    "priority": Entry("Higher is rendered first.", "10", "0"),
    "tags": Entry(
        "Carried to meta.json, index and report, as is every column that is not in this table.",
        '{"scene": "beach"}',
    ),
}
"""One for each of COLUMNS."""


def manifest_reference() -> str:
    """The table as Markdown."""
    lines = ["| column | type | tasks | default | meaning | example |", "|---|---|---|---|---|---|"]
    for name, entry in ENTRIES.items():
        said = " ".join([entry.meaning, *_rules(name)])
        type_ = TYPES[COLUMNS[name].convert]
        lines.append(
            f"| `{name}` | {type_} | {_tasks(name)} | {entry.default} | {said} | `{entry.example}` |"
        )
    return "\n".join(lines) + "\n"


def _tasks(name: str) -> str:
    if name not in INPUT_COLUMNS:
        return "all"
    takers = [task.name for task in TASKS.values() if name in (*task.required, *task.optional)]
    return ", ".join(takers) or "none yet"


def _rules(name: str) -> Iterator[str]:
    """What the messages say, as sentences."""
    own = [rule.says for rule in RULES if rule.column == name] + list(_rules_of_models(name))
    if own:
        yield _sentence("; ".join(own))
    needed = [others for column, others, _ in TOGETHER if column == name]
    yield from (f"Needs `{'`, `'.join(others)}`." for others in needed)
    apart = [pair for pair in (*EXCLUSIONS, *APART) if name in pair]
    if apart:
        others = [other for pair in apart for other in pair if other != name]
        yield f"Excludes `{'`, `'.join(others)}`."


def _rules_of_models(name: str) -> Iterator[str]:
    if name in ("size", "width", "height"):
        multiples = {model.size_multiple_px: model.name for model in MODELS.values()}
        usual, *others = sorted(multiples)
        yield f"multiples of {usual}" + "".join(f" ({multiples[other]}: {other})" for other in others)
    elif name == "num_frames":
        (stride,) = {model.temporal_stride for model in MODELS.values()}
        fewest = [
            f"; {task.name}: at least {task.min_frames}" for task in TASKS.values() if task.min_frames > 1
        ]
        most = [f"; {task.name}: {task.max_frames}" for task in TASKS.values() if task.max_frames is not None]
        yield f"{stride}n+1{''.join(fewest + most)}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
