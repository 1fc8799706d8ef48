"""What training the demo's models rests on: shortcuts that change no number, and going on after a stop."""

import numpy as np
import pytest
import torch

from tools.demo_model import parts, whole_clip
from tools.demo_model.clips import FORMATS, HELD_OUT, TRAINED, draw_batch, some_scenes
from tools.demo_model.loop import Training, finished
from tools.demo_model.muon import orthogonal
from tools.demo_model.networks import make_transformer, make_vae
from tools.demo_model.principal import principal_axes, turn
from tools.demo_model.text import attend_to_short_texts, embed, make_text_encoder, make_tokenizer
from tools.demo_model.write import write_checkpoint
from wanray.models.text import TextEncoder
from wanray.registry import get_model

NAMES = ("ti2v-5b", "t2v-a14b")


def varied(network):
    """Random values where training begins with zeros."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_whole_clip_at_once_gives_what_chunks_give(name, form):
    vae, rng = varied(make_vae(get_model(name))), np.random.default_rng(0)
    video = draw_batch(some_scenes(rng, 2), form, rng)
    latents = vae.encode(video).latent_dist.mode()
    frames = vae.decode(latents).sample
    whole_clip.take_whole_clips(vae)
    assert torch.allclose(whole_clip.encode(vae, video), latents, atol=2e-5)
    assert torch.allclose(whole_clip.decode(vae, latents).clamp(-1, 1), frames, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_latents_are_as_large_as_the_model_says(name):
    model = get_model(name)
    latents = make_vae(model).encode(torch.zeros(1, 3, 9, 64, 96)).latent_dist.mode()
    stride = model.spatial_stride
    assert latents.shape == (1, model.latent_channels, 3, 64 // stride, 96 // stride)


@torch.inference_mode()
def test_short_texts_stand_for_long_ones():
    transformer = varied(make_transformer(get_model("t2v-a14b")))
    texts = embed(make_tokenizer(), make_text_encoder().eval(), ["a red circle moving up", ""])
    latents, timesteps = torch.randn(2, 16, 3, 8, 8), torch.tensor([900.0, 100.0])
    padded = torch.cat([texts, texts.new_zeros(2, 512 - texts.shape[1], texts.shape[2])], dim=1)
    full = transformer(latents, timesteps, padded, return_dict=False)[0]
    attend_to_short_texts(transformer)
    short = transformer(latents, timesteps, texts, return_dict=False)[0]
    assert torch.allclose(short, full, atol=1e-5)
    cut = transformer(latents, timesteps, texts.roll(1, 0), return_dict=False)[0]
    assert not torch.allclose(cut, full, atol=1e-3), "the text must tell"


def test_tokenizer_takes_any_case_and_punctuation():
    tokenizer = make_tokenizer()
    plain = tokenizer("a red circle moving right").input_ids
    assert tokenizer("A red circle, moving RIGHT!").input_ids == plain
    assert tokenizer.unk_token_id in tokenizer("a red dragon").input_ids
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]


def test_orthogonal_makes_singular_values_alike():
    torch.manual_seed(0)
    for shape in ((30, 80), (80, 30), (16, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert 0.3 < values.min() < values.max() < 1.3


class Line(torch.nn.Module):
    """Enough to be trained: a matrix, a vector and a table."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.matrix, self.table = torch.nn.Linear(6, 4), torch.nn.Embedding(5, 6)

    def loss(self, rng):
        wanted = torch.from_numpy(rng.standard_normal((8, 4), np.float32)) * 0.1 + 1
        return (self.matrix(self.table(torch.from_numpy(rng.integers(5, size=8)))) - wanted).square().mean()


def train(file, num_steps, stop_at=None):
    network = Line()
    training = Training(network, file, num_steps, lr=0.02, seed=1)

    def loss(rng):
        if training.step == stop_at:
            training._save()  # as the loop does once a minute
            raise KeyboardInterrupt
        return network.loss(rng)

    training.run(loss, lambda: "")
    return training


def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path):
    whole = train(tmp_path / "whole.pt", 40)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut.pt", 40, stop_at=17)
    assert finished(tmp_path / "cut.pt", 40) is None
    train(tmp_path / "cut.pt", 40)
    kept = finished(tmp_path / "cut.pt", 40)
    assert kept.keys() == whole.averaged.state_dict().keys()
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(kept[name], value), name


def test_training_learns(tmp_path):
    training = train(tmp_path / "t.pt", 800)
    rng = np.random.default_rng(9)
    assert training.averaged.loss(rng) < 0.1 * Line().loss(rng)


def test_no_held_out_scene_is_drawn_for_training():
    rng = np.random.default_rng(0)
    drawn = {scene.of_size("") for scene in some_scenes(rng, 4000)}
    assert drawn == set(TRAINED)
    assert not drawn & set(HELD_OUT)


def test_training_embeds_texts_as_the_product_does(tmp_path):
    """The embeddings that a transformer was trained with are those that it is given."""
    from wanray.checkpoint import open_checkpoint

    model, encoder = get_model("ti2v-5b"), make_text_encoder().eval()
    with torch.inference_mode():
        trained = embed(make_tokenizer(), encoder.bfloat16().float(), ["a red circle moving up"])[0]
    write_checkpoint(model, tmp_path, make_vae(model), encoder, [make_transformer(model)])
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.model.name == "ti2v-5b"
    product = TextEncoder(checkpoint.text_encoder, checkpoint.tokenizer, torch.float32, "cpu")
    embedding = product.encode("A red circle, moving up.")
    assert torch.allclose(embedding.text_LD, trained[: len(embedding.text_LD)], atol=1e-6)
    assert not trained[len(embedding.text_LD) :].any()


def test_a_training_begins_with_what_fits_of_another():
    """Blocks and texts are taken over; what is next to the latents, and has another shape, is not."""
    one, two = (torch.nn.ModuleDict({"transformer": make_transformer(get_model(name))}) for name in NAMES)
    own = {name: value.clone() for name, value in two.state_dict().items()}
    parts._begin_with(two, varied(one).state_dict() | {"text_encoder.shared.weight": torch.zeros(1)})
    around = {
        f"transformer.{name}" for name in ("patch_embedding.weight", "proj_out.weight", "proj_out.bias")
    }
    for name, value in two.state_dict().items():
        assert torch.equal(value, own[name] if name in around else one.state_dict()[name]), name


def test_a_given_checkpoint_is_taken_not_trained(tmp_path):
    model = get_model("ti2v-5b")
    transformer, encoder = varied(make_transformer(model)), make_text_encoder()
    write_checkpoint(model, tmp_path / model.name, make_vae(model), encoder, [transformer])
    taken = parts.Workshop(tmp_path / "work", tmp_path / "out", "cpu", given=tmp_path).denoiser("ti2v")
    for name, network in (("transformer", transformer), ("text_encoder", encoder)):
        for key, value in network.state_dict().items():
            assert torch.equal(taken[name].state_dict()[key], value.float()), key


def test_principal_axes_change_no_picture():
    """Latents of rank 3 in 16 channels come out in three channels, and decode to what they decoded to."""
    vae = varied(make_vae(get_model("t2v-a14b")))
    with torch.no_grad():
        weight = vae.quant_conv.weight[:16, :, 0, 0, 0]
        weight.copy_(torch.randn(16, 3) @ torch.randn(3, weight.shape[1]))
        vae.quant_conv.bias[:16].normal_()
    rng = np.random.default_rng(0)
    video = draw_batch(some_scenes(rng, 8), FORMATS[0], rng)
    whole_clip.take_whole_clips(vae)
    with torch.no_grad():
        before = whole_clip.encode(vae, video)
        turn(vae, principal_axes(before))
        after = whole_clip.encode(vae, video)
        used = after.abs().amax(dim=(0, 2, 3, 4)) > 0
        assert used.tolist() == [True] * 3 + [False] * 13
        assert after.mean((0, 2, 3, 4)).abs().max() < 1e-3 * after.std()
        cells = after[:, :3].transpose(0, 1).flatten(1)
        shares = torch.cov(cells) / torch.cov(cells).trace()
        assert torch.allclose(shares, shares.diag().diag(), atol=1e-4)
        assert shares.diag().tolist() == sorted(shares.diag().tolist(), reverse=True)
        assert cells.std(dim=1).square().mean().sqrt().item() == pytest.approx(
            vae.config.latents_std[0], 1e-3
        )
        straight = vae.post_quant_conv(after)
        turn_back = make_vae(get_model("t2v-a14b"))
        varied(turn_back)
        expected = turn_back.post_quant_conv(before)
        assert torch.allclose(straight, expected, atol=1e-3 * expected.abs().max().item())
