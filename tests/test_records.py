"""Records survive the way between processes; keys change with everything that decides pixels."""

import hashlib
import json
import pickle
from dataclasses import asdict, replace

import pytest

import wanray
from wanray import errors
from wanray.errors import FailureCause, FailureClass
from wanray.records import RECORD_SCHEMA, Clip, FailedTry, Record, Request, canonical_json, content_key
from wanray.registry import Guidance

REQUEST = Request(
    task="t2v", prompt='a "cat"\n猫', negative_prompt="", width=64, height=48, num_frames=9, fps=16.0, seed=7,
    steps=6, shift=5.0, guidance=Guidance(high=4.0, low=3.0), solver="unipc", inputs={"video": ("d",)},
    context_scale=0.5, video_sampling="even",
)  # fmt: skip
CLIP = Clip(path="p", sha256="s", bytes=1, codec="h264", width=64, height=48, num_frames=9, fps=16.0)
TRY = FailedTry(stage="denoise", failure_class=FailureClass.MODEL, message="no")
MODEL, NUMERICS = {"name": "m", "digest": "d"}, {"mode": "official"}


@pytest.mark.parametrize("change", [{}, {"clip": CLIP}, {"payload": b"\0\xff"}, {"skipped": "claimed"}])
def test_a_record_comes_back_from_arrow_as_it_was(change):
    record = Record(
        key="ab", ids=("a", "b"), request=REQUEST, tags={"x": [1]}, sources={"d": "s3://a/b"},
        timings_s={"encode": 0.5}, tries=(TRY,),
        topology={"denoise": {"ulysses": 2}}, notes=("cut",), **change,
    )  # fmt: skip
    table = record.to_table()
    assert table.schema == RECORD_SCHEMA
    assert Record.from_table(table) == record


def test_a_failed_record_keeps_all_its_tries_and_starts_afresh_with_them():
    death = FailedTry(
        stage="denoise",
        failure_class=FailureClass.INFRASTRUCTURE,
        message="gone",
        cause=FailureCause.WORKER_DIED,
    )
    record = Record(key="ab", ids=("a",), request=REQUEST, payload=b"x").tried(TRY).failed(death)
    assert Record.from_table(record.to_table()) == record
    assert record.failure is not None
    assert (record.failure.attempts, record.failure.tries) == (2, (TRY, death))
    assert record.failure.retryable
    assert not record.is_open
    again = record.fresh()
    assert again.is_open
    assert (again.attempts, again.tries) == (3, (TRY, death))


@pytest.mark.parametrize(
    ("tries", "retryable"),
    [
        ([("model", "error")], False),
        ([("input", "error")], False),
        ([("infrastructure", "storage")], True),
        ([("model", "out_of_memory")], True),
        ([("model", "out_of_memory"), ("model", "out_of_memory")], False),
        ([("model", "error"), ("infrastructure", "stalled")], True),
    ],
)
def test_what_may_pass_is_tried_again_and_memory_once(tries, retryable):
    record = Record(key="ab", ids=("a",), request=REQUEST)
    *earlier, last = [
        FailedTry(stage="s", failure_class=FailureClass(kind), message="", cause=FailureCause(cause))
        for kind, cause in tries
    ]
    failure = record.tried(*earlier).failed(last).failure
    assert failure is not None
    assert failure.retryable is retryable


def test_request_json_is_canonical():
    text = REQUEST.to_json()
    assert Request.from_json(text) == REQUEST
    assert text == canonical_json(json.loads(text))
    assert "猫" in text


def test_the_key_is_the_hash_of_what_it_says():
    whole = {"format": 2, "model": MODEL, "numerics": NUMERICS, "request": asdict(REQUEST)}
    expected = hashlib.sha256(canonical_json(whole).encode()).hexdigest()
    assert content_key(REQUEST.to_json(), MODEL, NUMERICS) == expected


OTHERS = {"inputs": {"video": ("e",)}, "key_frames": (3,)}


@pytest.mark.parametrize("name", sorted(set(asdict(REQUEST)) - {"guidance", "extension"}))
def test_every_parameter_changes_the_key(name):
    value = getattr(REQUEST, name)
    other = OTHERS[name] if name in OTHERS else value + ("x" if isinstance(value, str) else 1)
    changed = replace(REQUEST, **{name: other})
    assert content_key(changed.to_json(), MODEL, NUMERICS) != content_key(REQUEST.to_json(), MODEL, NUMERICS)


def test_model_numerics_and_guidance_change_the_key():
    base = content_key(REQUEST.to_json(), MODEL, NUMERICS)
    guidance = replace(REQUEST, guidance=Guidance(high=3.0, low=4.0))
    others = [
        content_key(guidance.to_json(), MODEL, NUMERICS),
        content_key(REQUEST.to_json(), MODEL | {"digest": "e"}, NUMERICS),
        content_key(REQUEST.to_json(), MODEL, {"mode": "diffusers"}),
    ]
    assert len({base, *others}) == 4


def exceptions():
    return [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]


@pytest.mark.parametrize("error", exceptions(), ids=lambda error: error.__name__)
def test_errors_cross_processes(error):
    copy = pickle.loads(pickle.dumps(error("what happened")))
    assert type(copy) is error
    assert str(copy) == "what happened"


def test_public_names_are_sorted_and_there():
    assert wanray.__all__ == sorted(wanray.__all__)
    assert set(wanray._HOMES) == set(wanray.__all__)
    for name in wanray.__all__:
        assert getattr(wanray, name).__module__.startswith("wanray")
