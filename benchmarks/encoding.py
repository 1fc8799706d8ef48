"""(g) Encoding of texts: texts/s by batch and length, gain of buckets, cost of a cache hit, error of int8.

Columns are dtypes: of all weights, or of what is not int8. Weights are random. `tiny` is the tiny checkpoint;
`wide` are layers of UMT5-XXL in full width, with a vocabulary of 256 tokens, stored in bfloat16 as the
released ones are: one of the 24 layers unless the row says more. `gain` is that over padding to 512 tokens.
Encoding is timed in CPU time of one thread, which is wall time on an idle machine, cache hits in wall time:
medians, or one run where it is long. A hit's `share` is of encoding the text with one layer. Errors are
relative, against float32: of all states, and of the worst token. GiB of the whole UMT5-XXL are counted.
"""

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import UMT5Config, UMT5EncoderModel

from benchmarks.seaweed import BUCKET, CREDENTIALS, s3_server
from wanray.checkpoint import Checkpoint, Component, open_checkpoint
from wanray.models.state import DTYPES
from wanray.models.text import TextEncoder
from wanray.models.tiny import WORDS, write_tiny
from wanray.sizing import TEXT_BUCKETS
from wanray.stages.kept import Kept
from wanray.stages.payload import pack_tensors, unpack_tensors

WAYS = {
    "float32": ("float32", False),
    "bfloat16": ("bfloat16", False),
    "int8_float32": ("float32", True),
    "int8_bfloat16": ("bfloat16", True),
}
"""Columns: dtype, and whether the weights of linear layers are int8."""
BATCHES = (1, 2, 4, 8)
MOST_TOKENS = {"float32": 1024, "bfloat16": 128, "int8_float32": 0, "int8_bfloat16": 1024}
"""Of several texts at full width: more takes minutes and tells no more."""
REPEATS, ENOUGH_S = 3, 2.0
DEPTHS = (4, 2, 1)
DIM, FFN_DIM, HEADS, LAYERS, VOCABULARY = 4096, 10240, 64, 24, 256_384
SMALL_VOCABULARY = 256
HIT_TOKENS, HITS = 100, 20

Row = dict[str, float | str]
Encoders = Mapping[str, TextEncoder]
Seconds = dict[str, float]


def run() -> list[Row]:
    """One row per quantity and case."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny("t2v-1.3b", folder / "tiny")
        tiny = open_checkpoint(str(folder / "tiny"))
        small = {way: load(way, tiny.text_encoder, tiny) for way in WAYS}
        rows = speeds("tiny", small, dict.fromkeys(WAYS, BATCHES[-1] * TEXT_BUCKETS[-1]))[0]
        wide, error_rows = shallow(write_wide(folder / "wide"), tiny)
        speed_rows, alone = speeds("wide", wide, MOST_TOKENS)
        rows += speed_rows + sizes(wide)
        rows += cache_hits(folder, alone[TEXT_BUCKETS[1]])
    return rows + error_rows


def row(what: str, case: str, values: Mapping[str, float]) -> Row:
    """`values` in their columns."""
    return {"what": what, "case": case} | {way: values.get(way, "-") for way in WAYS}


def load(way: str, component: Component, tiny: Checkpoint) -> TextEncoder:
    """The encoder of `component` in one of `WAYS`."""
    dtype, int8 = WAYS[way]
    return TextEncoder(component, tiny.tokenizer, DTYPES[dtype], "cpu", int8=int8)


def write_wide(folder: Path) -> Component:
    """A random UMT5 of a few layers, in bfloat16."""
    torch.manual_seed(1)
    config = UMT5Config(
        vocab_size=SMALL_VOCABULARY,
        d_model=DIM,
        d_ff=FFN_DIM,
        d_kv=DIM // HEADS,
        num_heads=HEADS,
        num_layers=DEPTHS[0],
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )
    UMT5EncoderModel._from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    file = folder / "model.safetensors"
    return Component(
        role="text_encoder",
        layout="diffusers",
        path=str(folder),
        files=(str(file),),
        config=config.to_dict(),
    )


def text(num_tokens: int, seed: int) -> str:
    """Random words; the last token is the end of the text."""
    return " ".join(random.Random(seed).choices(WORDS.split(), k=num_tokens - 1))


def shallow(component: Component, tiny: Checkpoint) -> tuple[dict[str, TextEncoder], list[Row]]:
    """Encoders of one layer, and what they erred by with that and more layers, against float32."""
    texts = [text(num_tokens, seed=num_tokens) for num_tokens in (40, 64)]
    encoders: dict[str, TextEncoder] = {}
    exact: dict[int, torch.Tensor] = {}
    whole: dict[int, Seconds] = {depth: {} for depth in DEPTHS}
    worst: dict[int, Seconds] = {depth: {} for depth in DEPTHS}
    for way in WAYS:
        encoders[way] = load(way, component, tiny)
        stack = encoders[way].encoder.encoder
        for depth in DEPTHS:
            stack.block = stack.block[:depth]
            states = torch.cat([found.text_LD.float() for found in encoders[way].encode_all(texts)])
            off = states - exact.setdefault(depth, states)
            whole[depth][way] = (off.norm() / exact[depth].norm()).item()
            worst[depth][way] = (off.norm(dim=1) / exact[depth].norm(dim=1)).max().item()
    rows = []
    for depth in sorted(DEPTHS):
        rows.append(row("wide error", f"{depth} layers", whole[depth]))
        rows.append(row("worst error", f"{depth} layers", worst[depth]))
    return encoders, rows


def speeds(
    name: str, encoders: Encoders, most_tokens: Mapping[str, int]
) -> tuple[list[Row], dict[int, Seconds]]:
    """Rows, and the seconds of a single text by bucket."""
    rows, alone = [], {}
    for batch in BATCHES:
        for bucket in TEXT_BUCKETS:
            some = {
                way: encoder
                for way, encoder in encoders.items()
                if batch == 1 or batch * bucket <= most_tokens[way]
            }
            seconds = timed(some, [text(bucket, seed) for seed in range(batch)], time.process_time)
            if batch == 1:
                alone[bucket] = seconds
            rates = {way: batch / value for way, value in seconds.items()}
            rows.append(row(f"{name} texts/s", f"{batch} x {bucket}", rates))
    for bucket in TEXT_BUCKETS[:-1]:
        gains = {way: alone[TEXT_BUCKETS[-1]][way] / alone[bucket][way] for way in encoders}
        rows.append(row(f"{name} gain", f"{bucket}", gains))
    return [found for found in rows if any(found[way] != "-" for way in WAYS)], alone


def timed(encoders: Encoders, texts: list[str], clock: Callable[[], float]) -> Seconds:
    """Median seconds, taken in turns so that what disturbs the machine disturbs all."""
    found: dict[str, list[float]] = {way: [] for way in encoders}
    for _ in range(REPEATS):
        for way, encoder in encoders.items():
            if sum(found[way]) < ENOUGH_S:
                start = clock()
                encoder.encode_all(texts)
                found[way].append(clock() - start)
    return {way: statistics.median(values) for way, values in found.items()}


def sizes(encoders: Encoders) -> list[Row]:
    """GiB of one layer, and of all with the vocabulary, counted."""
    layer, table = {}, {}
    for way, encoder in encoders.items():
        block = encoder.encoder.encoder.block[0]
        layer[way] = sum(tensor.nbytes for tensor in (*block.parameters(), *block.buffers())) / 2**30
        table[way] = VOCABULARY * DIM * encoder.encoder.shared.weight.itemsize / 2**30
    whole = {way: LAYERS * layer[way] + table[way] for way in encoders}
    return [row("wide GiB", "1 layer", layer), row("wide GiB", "UMT5-XXL", whole)]


def cache_hits(folder: Path, encoding: Seconds) -> list[Row]:
    """Milliseconds of a hit, against those of one layer for a text of the same bucket."""
    rows = []
    with s3_server(folder) as endpoint:
        os.environ.update(CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint})
        for name, url in (("folder", str(folder / "kept")), ("S3", f"s3://{BUCKET}/kept")):
            hits = {way: hit_seconds(url, dtype) for way, (dtype, _) in WAYS.items()}
            rows.append(row("hit ms", name, {way: 1e3 * hits[way] for way in WAYS}))
            shares = {way: hits[way] / encoding[way] for way in WAYS}
            rows.append(row("hit share", name, shares))
    return rows


def hit_seconds(url: str, dtype: str) -> float:
    """Median of reading entries that another process might have put there."""
    value = ({"text": torch.randn(HIT_TOKENS, DIM).to(DTYPES[dtype])}, HIT_TOKENS)
    writer = kept(url)
    for number in range(HITS):
        writer.get((dtype, str(number)), lambda: value)
    reader, found = kept(url), []
    for number in range(HITS):
        start = time.perf_counter()
        reader.get((dtype, str(number)), _miss)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def kept(url: str) -> Kept[tuple[dict[str, torch.Tensor], Any]]:
    """As the encode stage has it, with nothing in memory yet."""
    return Kept("texts", url, HITS, pack_tensors, unpack_tensors)


def _miss() -> tuple[dict[str, torch.Tensor], Any]:
    raise AssertionError("what was put is not there")
