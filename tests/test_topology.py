"""Topologies: what divides what, what is refused, and how fast the plan takes a gang for."""

import pytest
import torch

from wanray.config import ATTENTIONS, RING_ATTENTIONS, TopologyConfig
from wanray.errors import ConfigError
from wanray.models.attention import NAMES, RING_NAMES, choose_attention
from wanray.models.ranks import Alone
from wanray.plan.speed import gang_speedup
from wanray.stage import Worker

KEY = "pools.denoise.topology"


def test_a_gang_is_cfg_x_ulysses_x_ring():
    topology = TopologyConfig(cfg=2, ulysses=4, ring=2, fsdp=16)
    topology.check(KEY)
    assert (topology.num_parts, topology.world_size) == (8, 16)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cfg": 3}, "topology.cfg must be 1 or 2, got 3"),
        ({"ulysses": 0}, "topology.ulysses must be at least 1, got 0"),
        ({"ulysses": 4, "fsdp": 2}, "topology.fsdp must be 1 or the gang's 4 ranks, got 2"),
    ],
)
def test_what_is_no_arrangement_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        TopologyConfig(**wrong).check(KEY)


@pytest.mark.parametrize(
    ("num_heads", "usable"),
    [(40, "1, 2, 4, 5, 8, 10, 20, 40"), (24, "1, 2, 3, 4, 6, 8, 12, 24"), (12, "1, 2")],
)
def test_heads_must_divide(num_heads, usable):
    with pytest.raises(ConfigError, match=f"the model's {num_heads} heads, got 7: use one of {usable}"):
        TopologyConfig(ulysses=7).check_model(KEY, num_heads, "auto")
    TopologyConfig(ulysses=4).check_model(KEY, num_heads, "auto")


def test_a_ring_needs_a_kernel_that_can_be_merged():
    for attention in ("auto", *RING_ATTENTIONS):
        TopologyConfig(ring=2).check_model(KEY, 40, attention)
    for attention, key in (("flash_4", "denoise"), ("sage", "numerics")):
        TopologyConfig(ulysses=2).check_model(KEY, 40, attention)
        with pytest.raises(ConfigError, match=f"which {attention} does not: .* another {key}.attention"):
            TopologyConfig(ring=2).check_model(KEY, 40, attention)


@pytest.mark.parametrize(
    ("ulysses", "ring", "num_tokens", "fits"),
    [
        (1, 4, 4, True),
        (1, 4, 5, False),  # 2 + 2 + 1 + nothing
        (1, 4, 3, False),
        (1, 4, 6, False),
        (1, 4, 7, True),
        (2, 2, 3, True),  # the second half of the ring still holds one
        (2, 2, 2, False),
        (4, 1, 1, True),
        (8, 2, 75_600, True),
    ],
)
def test_no_part_of_a_ring_holds_nothing_but_pads(ulysses, ring, num_tokens, fits):
    topology = TopologyConfig(ulysses=ulysses, ring=ring)
    part = -(-num_tokens // topology.num_parts)
    assert fits == (num_tokens > ulysses * (ring - 1) * part), "the rule, from the parts"
    if fits:
        topology.check_tokens(KEY, [num_tokens])
    else:
        with pytest.raises(ConfigError, match=f"cannot divide a request of {num_tokens} tokens among"):
            topology.check_tokens(KEY, [num_tokens])


def test_speed_follows_the_official_table():
    """T2V-A14B at 720p on H100: 1041.5, 288.7 and 155.1 s on 1, 4 and 8; Wan2.1's 1837.9 and 945.1 s on 2."""
    for ulysses, official in ((1, 1.0), (2, 1837.9 / 945.1), (4, 1041.5 / 288.7), (8, 1041.5 / 155.1)):
        assert gang_speedup(TopologyConfig(ulysses=ulysses), guided=True) == pytest.approx(official, rel=0.03)


def test_guidance_side_by_side_gains_only_where_there_is_guidance():
    assert gang_speedup(TopologyConfig(cfg=2), guided=True) == 1.9
    assert gang_speedup(TopologyConfig(cfg=2), guided=False) == 1.0


def test_kernels_have_names_here_and_in_xdit():
    assert list(NAMES) == [*ATTENTIONS, "sage"]
    assert set(RING_NAMES) == set(RING_ATTENTIONS) < set(ATTENTIONS)


def test_a_cpu_has_one_kernel():
    for wanted in ("auto", "sdpa"):
        assert choose_attention(wanted, True, "cpu", torch.float32)[0] == "sdpa"
        assert Alone(Worker(), wanted).attention == "sdpa"
    for wanted, key in (("flash_3", "denoise"), ("sage", "numerics")):
        with pytest.raises(
            ConfigError, match=f"{key}.attention {wanted} does not work with a ring on all dev"
        ):
            choose_attention(wanted, True, "cpu", torch.float32)
        with pytest.raises(ConfigError, match=f"{key}.attention {wanted} needs GPUs"):
            Alone(Worker(), wanted)
