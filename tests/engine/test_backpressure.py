"""The bound on queued items: it holds back a fast producer, and never starves a wide one."""

from types import SimpleNamespace

import pytest

from wanray.engine.ray_data_private import CAPS, MaxQueued


class Operator:
    """As much of a Ray Data operator as the policy sees."""

    def __init__(self, name, waiting=0, active=0):
        self.name, self.waiting, self.active = name, waiting, active
        self.output_dependencies = []

    def num_active_tasks(self):
        return self.active

    def total_enqueued_input_blocks(self):
        return self.waiting


def allowed(producer, consumer, caps):
    producer.output_dependencies = [consumer]
    context = SimpleNamespace(get_config={CAPS: caps}.__getitem__)
    policy = MaxQueued.__new__(MaxQueued)
    policy.__dict__.update(_data_context=context, _topology={producer: producer, consumer: consumer})
    return policy.can_add_input(producer)


@pytest.mark.parametrize("active", range(9))
def test_many_gangs_may_feed_one_decoder(active):
    assert allowed(
        Operator("MapBatches(Denoise)", active=active), Operator("MapBatches(Decode)"), {"Decode": 4}
    )


@pytest.mark.parametrize(("waiting", "expected"), [(3, True), (4, False), (9, False)])
def test_a_full_queue_holds_its_producer_back(waiting, expected):
    consumer = Operator("MapBatches(DenoiseHigh)", waiting)
    assert allowed(Operator("MapBatches(Encode)"), consumer, {"DenoiseHigh": 4, "Decode": 9}) is expected


def test_the_last_operator_is_free():
    policy = MaxQueued.__new__(MaxQueued)
    policy.__dict__.update(_data_context=SimpleNamespace(get_config=lambda name: {}), _topology={})
    assert policy.can_add_input(Operator("MapBatches(Decode)"))
