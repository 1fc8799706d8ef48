"""An animated picture of the clips of an output, each above its prompt: `contact_sheet.py OUTPUT FILE.webp`.

Clips play together; shorter ones wait for the longest on their last frame.
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wanray.media.video import probe_video, read_frames

COLUMNS = 4
MOST_CLIPS = 8
CELL_PX, MARGIN_PX, TEXT_PX = 192, 12, 52
LINE_CHARACTERS = 30
PAPER, INK = (250, 250, 248), (40, 40, 44)
PAUSE_S = 1.0
"""On the last frame, before it begins again."""


def main() -> None:
    """Write the sheet."""
    out, file = map(Path, sys.argv[1:3])
    clips = list(_clips(out))[:MOST_CLIPS]
    if not clips:
        sys.exit(f"{out} holds no clips: render some first")
    frames = _sheet(clips)
    frame_s = 1 / clips[0][2]
    durations_ms = [round(frame_s * 1000)] * (len(frames) - 1) + [round(PAUSE_S * 1000)]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations_ms, loop=0, quality=80)
    print(f"sheet      {file}: {len(clips)} clips for any browser, {file.stat().st_size / 1e3:.0f} kB")


def _clips(out: Path) -> Iterator[tuple[str, list[np.ndarray], float]]:
    """Prompt, frames uint8 [H, W, 3] and frames per second of each clip, in the order of their names."""
    metas = [json.loads(file.read_text()) for file in out.glob("clips/*/*/meta.json")]
    for meta in sorted(metas, key=lambda meta: (meta["ids"], meta["key"])):
        data = (out / meta["video"]["path"]).read_bytes()
        frames = list(read_frames(data, range(probe_video(data).num_frames)))
        yield meta["request"]["prompt"], frames, meta["request"]["fps"]


def _sheet(clips: list[tuple[str, list[np.ndarray], float]]) -> list[Image.Image]:
    """Every frame of the sheet."""
    columns = min(COLUMNS, len(clips))
    rows = -(-len(clips) // columns)
    step_x, step_y = CELL_PX + MARGIN_PX, CELL_PX + TEXT_PX + MARGIN_PX
    empty = Image.new("RGB", (columns * step_x + MARGIN_PX, rows * step_y + MARGIN_PX), PAPER)
    places = [
        (MARGIN_PX + step_x * (n % columns), MARGIN_PX + step_y * (n // columns)) for n in range(len(clips))
    ]
    pen, font = ImageDraw.Draw(empty), ImageFont.load_default(size=13)
    for (x, y), (prompt, _, _) in zip(places, clips, strict=True):
        words = textwrap.fill(prompt, LINE_CHARACTERS, max_lines=3, placeholder=" …")
        pen.multiline_text((x, y + CELL_PX + 5), words, INK, font)
    sheets = []
    for number in range(max(len(frames) for _, frames, _ in clips)):
        sheet = empty.copy()
        for (x, y), (_, frames, _) in zip(places, clips, strict=True):
            picture = Image.fromarray(frames[min(number, len(frames) - 1)])
            picture.thumbnail((CELL_PX, CELL_PX))
            scale = CELL_PX / max(picture.size)
            picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
            sheet.paste(picture, (x, y + CELL_PX - picture.height))
        sheets.append(sheet)
    return sheets


if __name__ == "__main__":
    main()
