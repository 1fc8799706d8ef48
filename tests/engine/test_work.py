"""One record through a chain of stages: errors become its failure, unless the worker is broken."""

import pytest

from wanray.engine.work import Chain
from wanray.errors import EngineError, FailureClass, InfrastructureError, InputError
from wanray.records import Record, Request
from wanray.registry import Guidance
from wanray.stage import StageSpec

REQUEST = Request(
    task="t2v", prompt="p", negative_prompt="", width=64, height=64, num_frames=5, fps=16.0, seed=1, steps=2,
    shift=5.0, guidance=Guidance(high=1.0, low=1.0), solver="unipc",
)  # fmt: skip


class Scripted:
    """A stage whose config says what to raise, or None, and whether it survives that."""

    def __init__(self, config):
        self.error, self.survives = config
        self.calls = 0

    def run(self, record, report):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return record

    def healthy(self):
        return self.survives


def chain(*configs):
    specs = [
        StageSpec(name=f"s{i}", target=f"{__name__}:Scripted", config=config)
        for i, config in enumerate(configs)
    ]
    return Chain(specs)


def run(work):
    return work.run(
        Record(key="ab" * 32, ids=("a",), request=REQUEST, payload=b"x"), lambda step, total: None
    )


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (InputError("too long"), FailureClass.INPUT),
        (InfrastructureError("store is gone"), FailureClass.INFRASTRUCTURE),
        (ValueError("bad\nshape"), FailureClass.MODEL),
        (MemoryError(), FailureClass.MODEL),
    ],
)
def test_an_error_is_the_records_failure_and_later_stages_are_passed(error, failure_class):
    work = chain((None, True), (error, True), (None, True))
    record = run(work)
    assert record.failure is not None
    assert (record.failure.stage, record.failure.failure_class) == ("s1", failure_class)
    assert record.payload == b""
    assert "\n" not in record.failure.message
    assert [stage.calls for stage in work.stages] == [1, 1, 0]


def test_a_broken_worker_is_not_the_records_fault():
    with pytest.raises(EngineError, match="worker of stage s0 is broken by RuntimeError: illegal access"):
        run(chain((RuntimeError("illegal access"), False)))


def test_timings_are_noted_per_stage():
    record = run(chain((None, True), (None, True)))
    assert set(record.timings_s) == {"s0", "s1"}
