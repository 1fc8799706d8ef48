"""Prompt extension through the command: keys, caches, what meta.json says, what happens when it fails."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "prompts"))
from stub_endpoint import Answer, StubEndpoint, completion
from tiny_qwen import write_qwen_vl

SMALL = {"width": 64, "height": 48, "num_frames": 5, "steps": 1}
KEY = "sk-very-secret-0123456789"
LONG = "A grey cat walks slowly along an old stone wall in warm evening light, low camera, shallow focus."


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("DASH_API_KEY", KEY)
    with StubEndpoint(completion(LONG)) as server:
        yield server


@pytest.fixture
def job(tmp_path, tiny, stub):
    """job(rows, model, out, **keys) -> (folder of the output, arguments of `wanray render`)."""

    def make(rows, model="t2v-1.3b", out="out", **keys):
        pq.write_table(pa.Table.from_pylist([SMALL | row for row in rows]), tmp_path / "m.parquet")
        config = {"engine": "local", "numerics.dtype": "float32", "extension.method": "chat"}
        config |= {"extension.base_url": stub.base_url, "extension.language": "en", "extension.retries": 0}
        config |= {
            "manifest": tmp_path / "m.parquet",
            "model.path": tiny(model),
            "output.url": tmp_path / out,
        }
        (tmp_path / "c.yaml").write_text("{}\n")
        return tmp_path / out, [
            tmp_path / "c.yaml",
            *(f"{key}={value}" for key, value in (config | keys).items()),
        ]

    return make


def metas(out):
    return [json.loads(path.read_text()) for path in sorted(out.glob("clips/*/*/meta.json"))]


def test_prompts_are_extended_once_and_the_clip_says_so(job, run_cli, stub):
    out, arguments = job([{"prompt": "a cat", "seed": seed} for seed in range(4)])
    code, _, errors = run_cli("render", *arguments)
    assert code == 0, errors
    assert len(stub.seen) == 1
    body = stub.seen[0].body
    assert (body["model"], body["seed"], body["messages"][1]["content"]) == ("qwen-plus", 0, "a cat")
    for meta in metas(out):
        assert meta["request"]["prompt"] == "a cat"
        assert meta["extended"] == {"prompt": LONG}
        assert meta["request"]["extension"].keys() == {
            "language", "method", "model", "seed", "template", "variant"
        }  # fmt: skip
    assert len(metas(out)) == 4


def test_a_later_run_over_new_seeds_asks_nobody(job, run_cli, stub):
    for seed in (1, 2):
        _, arguments = job([{"prompt": "a cat", "seed": seed}])
        assert run_cli("render", *arguments)[0] == 0
    assert len(stub.seen) == 1


def test_the_extended_prompt_is_what_is_encoded(job, run_cli):
    out, arguments = job([{"prompt": "a cat", "seed": 1}], **{"output.save_latents": True})
    assert run_cli("render", *arguments)[0] == 0
    plain, arguments = job(
        [{"prompt": LONG, "seed": 1}],
        out="plain",
        **{"output.save_latents": True, "extension.method": "none"},
    )
    assert run_cli("render", *arguments)[0] == 0
    (one,), (other,) = (list(folder.glob("clips/*/*/latents.safetensors")) for folder in (out, plain))
    assert one.read_bytes() == other.read_bytes()
    assert one.parent.name != other.parent.name


def test_variants_are_requests_of_their_own(job, run_cli, stub):
    stub.answers[:] = [completion(f"{LONG} Take {take}.") for take in range(3)]
    out, arguments = job([{"id": "cat", "prompt": "a cat", "seed": 1}], **{"extension.variants": 3})
    code, output, _ = run_cli("render", *arguments)
    assert code == 0
    assert "extended by chat (qwen-plus), in en, 3 variants of each" in output
    assert sorted(seen.body["seed"] for seen in stub.seen) == [0, 1, 2]
    assert len({meta["extended"]["prompt"] for meta in metas(out)}) == 3
    assert sorted(meta["ids"][0] for meta in metas(out)) == [f"cat#variant={variant}" for variant in range(3)]


def test_an_image_without_a_prompt_is_described(job, run_cli, stub, tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    out, arguments = job([{"image": str(tmp_path / "red.png"), "seed": 1}], model="i2v-14b-720p")
    code, _, errors = run_cli("render", *arguments)
    assert code == 0, errors
    (meta,) = metas(out)
    assert (meta["request"]["prompt"], meta["extended"]) == ("", {"prompt": LONG})
    content = stub.seen[0].body["messages"][1]["content"]
    assert stub.seen[0].body["model"] == "qwen-vl-max"
    assert any(part["type"] == "image_url" for part in content)


def test_without_a_model_an_image_needs_its_prompt(job, run_cli, tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    rows = [{"image": str(tmp_path / "red.png"), "seed": 1}]
    _, arguments = job(rows, model="i2v-14b-720p", **{"extension.method": "none"})
    code, output, errors = run_cli("plan", *arguments)
    assert "extended by" not in output
    assert "prompt: is required" in output + errors
    assert "extension.method" in output + errors
    assert code == 0


@pytest.mark.parametrize("on_error", ["keep", "fail"])
def test_an_endpoint_that_fails(job, run_cli, stub, on_error):
    stub.answers[:] = [Answer(status=500)]
    keys = {"extension.on_error": on_error, "faults.max_rounds": 0, "faults.max_attempts": 1}
    out, arguments = job([{"prompt": "a cat", "seed": 1}], **keys)
    code, _, _ = run_cli("render", *arguments)
    if on_error == "keep":
        (meta,) = metas(out)
        assert code == 0
        assert "500" in meta["extended"]["kept"]
        assert any("rendered as written" in note for note in meta["notes"])
    else:
        (failure,) = [json.loads(path.read_text()) for path in out.glob("failures/*.json")]
        assert code == 2
        assert (failure["stage"], failure["class"]) == ("extend", "infrastructure")


def test_the_key_is_nowhere(job, run_cli, stub):
    stub.answers[:] = [Answer(status=500, body=KEY.encode()), completion(LONG)]
    out, arguments = job([{"prompt": "a cat", "seed": 1}])
    _, output, errors = run_cli("render", *arguments)
    assert KEY not in output + errors
    assert stub.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_key_that_is_not_set_is_wrong_use(job, run_cli, monkeypatch):
    monkeypatch.delenv("DASH_API_KEY")
    _, arguments = job([{"prompt": "a cat", "seed": 1}])
    code, _, errors = run_cli("render", *arguments)
    assert code == 1
    assert "DASH_API_KEY is not set" in errors


def test_texts_and_conditions_are_kept_between_runs(job, run_cli, tmp_path, monkeypatch):
    from wanray.models.conditions import ConditionEncoder
    from wanray.models.text import TextEncoder

    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    counts = {"texts": 0, "conditions": 0}
    encode_texts, encode_condition = TextEncoder.encode_all, ConditionEncoder.encode

    def counted_texts(self, texts):
        counts["texts"] += len(texts)
        return encode_texts(self, texts)

    def counted_condition(self, *arguments):
        counts["conditions"] += 1
        return encode_condition(self, *arguments)

    monkeypatch.setattr(TextEncoder, "encode_all", counted_texts)
    monkeypatch.setattr(ConditionEncoder, "encode", counted_condition)
    latents = []
    for run, url in enumerate(["cache", "cache", None]):
        row = {"image": str(tmp_path / "red.png"), "prompt": "a cat", "seed": 1}
        keys = {"extension.method": "none", "output.save_latents": True}
        keys |= {"cache.url": tmp_path / url} if url else {}
        out, arguments = job([row], model="i2v-14b-720p", out=f"out{run}", **keys)
        assert run_cli("render", *arguments)[0] == 0
        (path,) = out.glob("clips/*/*/latents.safetensors")
        latents.append(path.read_bytes())
        assert counts == ({"texts": 4, "conditions": 2} if url is None else {"texts": 2, "conditions": 1})
    assert len(set(latents)) == 1


def test_prompts_can_be_reviewed_before_they_are_rendered(job, run_cli, stub, tmp_path):
    rows = [{"id": f"r{row}", "prompt": f"a cat {row % 2}", "seed": row, "place": "home"} for row in range(4)]
    out, arguments = job([*rows, {"id": "bad", "prompt": "a dog", "num_frames": 6}])
    code, output, _ = run_cli("extend", *arguments, "--to", tmp_path / "extended.parquet")
    assert code == 2
    assert "num_frames" in output
    assert len(stub.seen) == 2
    table = pq.read_table(tmp_path / "extended.parquet")
    assert table["id"].to_pylist() == ["r0", "r1", "r2", "r3"]
    assert set(table["prompt"].to_pylist()) == {LONG}
    assert table["written_prompt"].to_pylist() == [row["prompt"] for row in rows]
    assert table["seed"].to_pylist() == [0, 1, 2, 3]
    keys = [f"manifest={tmp_path / 'extended.parquet'}", "extension.method=none"]
    assert run_cli("render", *arguments, *keys)[0] == 0
    assert {(meta["request"]["prompt"], meta["tags"]["place"]) for meta in metas(out)} == {(LONG, "home")}
    assert len(stub.seen) == 2


def test_what_was_reviewed_is_not_asked_again_by_a_render(job, run_cli, stub):
    _, arguments = job([{"prompt": "a cat", "seed": 1}], **{"extension.variants": 2})
    code, output, _ = run_cli("extend", *arguments)
    assert (code, len(stub.seen)) == (0, 2), output
    assert run_cli("render", *arguments)[0] == 0
    assert len(stub.seen) == 2


def test_gc_trims_the_cache(job, run_cli):
    out, arguments = job([{"prompt": "a cat", "seed": 1}])
    assert run_cli("render", *arguments)[0] == 0
    (entry,) = [path for path in (out / "cache").rglob("*") if path.is_file()]
    assert "1 entries" in run_cli("gc", out, "--cache-gib", 0, "--dry-run")[1]
    assert entry.exists()
    assert run_cli("gc", out, "--cache-gib", 0)[0] == 0
    assert not entry.exists()


def test_a_run_keeps_the_cache_within_its_bounds(job, run_cli):
    out, arguments = job([{"prompt": "a cat", "seed": 1}])
    assert run_cli("render", *arguments, "cache.max_gib=1")[0] == 0
    assert [path for path in (out / "cache").rglob("*") if path.is_file()]
    _, arguments = job([{"prompt": "a cat", "seed": 2}])
    assert run_cli("render", *arguments, "cache.max_gib=0")[0] == 0
    assert not [path for path in (out / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("task", ["t2v", "i2v", "flf2v", "vace"])
def test_a_local_qwen_extends_every_task(task, job, run_cli, tmp_path):
    """A random one, whose answers are no prompts: they are refused, and the prompt is kept."""
    write_qwen_vl(tmp_path / "qwen")
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    images = {"i2v": ["image"], "flf2v": ["image", "last_image"]}.get(task, [])
    models = {"t2v": "t2v-1.3b", "i2v": "i2v-14b-720p", "flf2v": "flf2v-14b", "vace": "vace-1.3b"}
    row = {"prompt": "a cat", "seed": 1} | {name: str(tmp_path / "red.png") for name in images}
    keys = {"extension.method": "qwen", "extension.model": tmp_path / "qwen", "extension.max_tokens": 20}
    out, arguments = job([row], model=models[task], **keys)
    code, _, errors = run_cli("render", *arguments)
    assert code == 0, errors
    (meta,) = metas(out)
    assert meta["extended"].keys() <= {"prompt", "kept"}
    assert len(meta["request"]["extension"]["model"]) == 64


def test_a_local_qwen_answers_several_in_one_batch_where_it_may(job, run_cli, tmp_path, monkeypatch):
    from wanray.prompts.qwen import QwenExtender

    batches, ask_all = [], QwenExtender.ask_all
    monkeypatch.setattr(
        QwenExtender, "ask_all", lambda self, asked: batches.append(len(asked)) or ask_all(self, asked)
    )
    write_qwen_vl(tmp_path / "qwen")
    rows = [{"prompt": f"a cat {row}", "seed": row} for row in range(8)]
    keys = {"extension.method": "qwen", "extension.model": tmp_path / "qwen", "extension.max_tokens": 20}
    for out, concurrency in (("alone", None), ("together", 4)):
        keys |= {"pools.extend.concurrency": concurrency} if concurrency else {}
        batches.clear()
        _, arguments = job(rows, out=out, **keys)
        code, _, errors = run_cli("render", *arguments)
        assert code == 0, errors
        assert max(batches) == 1 if concurrency is None else 1 < max(batches) <= 4
    alone, together = (
        {meta["key"]: meta["extended"] for meta in metas(tmp_path / out)} for out in ("alone", "together")
    )
    assert alone.keys() == together.keys()


def test_a_folder_that_is_no_qwen_is_wrong_use(job, run_cli, tmp_path):
    (tmp_path / "qwen").mkdir()
    keys = {"extension.method": "qwen", "extension.model": tmp_path / "qwen"}
    code, _, errors = run_cli("plan", *job([{"prompt": "a cat"}], **keys)[1])
    assert code == 1
    assert "extension.model" in errors
    assert "config.json" in errors
