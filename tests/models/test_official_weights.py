"""Networks loaded from official checkpoints compute what the official code computed.

Data: tests/golden, made by the official code. Shape suffixes: B batch, C channels, T/F frames, H, W,
L tokens, D width.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import interpolate, pad

from wanray.checkpoint import open_checkpoint
from wanray.errors import ConfigError
from wanray.models.load import iter_tensors, load_network, network_class, network_config

GOLDEN = Path(__file__).parents[1] / "golden"
RUNS = sorted(str(folder.relative_to(GOLDEN)) for folder in GOLDEN.glob("*/runs/*"))
CASES = sorted(folder.parent.name for folder in GOLDEN.glob("*/checkpoint"))
MAX_TOKENS = 512


def case_of(run):
    return open_checkpoint(str(GOLDEN / run.split("/")[0] / "checkpoint"))


def outputs_of(run):
    return load_file(GOLDEN / run / "outputs.safetensors")


def load(component, dtype=torch.float32):
    return load_network(component, dtype, "cpu")


def assert_close(found, expected, atol):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


# Every network against the official code


@torch.inference_mode()
def test_text_embeddings():
    checkpoint = case_of("t2v-1.3B")
    rows = json.loads((GOLDEN / "text/prompts.json").read_text())["rows"]
    expected = load_file(GOLDEN / "text/embeddings.safetensors")
    encoder = load(checkpoint.text_encoder)
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight
    for number, row in enumerate(rows):
        ids_BL = torch.tensor([row["token_ids"]])
        assert_close(encoder(ids_BL).last_hidden_state[0], expected[str(number)], 1e-4)


@pytest.mark.parametrize("run", RUNS)
@torch.inference_mode()
def test_context_of_a_run(run):
    encoder, expected = load(case_of(run).text_encoder), outputs_of(run)
    for ids, context in (("token_ids", "context"), ("token_ids_null", "context_null")):
        ids_BL = expected[ids].long()[None]
        assert_close(encoder(ids_BL).last_hidden_state[0], expected[context], 1e-4)


@pytest.mark.parametrize("step", ["step0", "last"])
@pytest.mark.parametrize("run", RUNS)
@torch.inference_mode()
def test_transformer(run, step):
    checkpoint, expected = case_of(run), outputs_of(run)
    expert = checkpoint.model.experts[0 if step == "step0" else -1]
    transformer = load(checkpoint.transformers[expert])
    settings = json.loads((GOLDEN / run / "inputs.json").read_text())
    inputs = transformer_inputs(expected, step, settings.get("context_scale", 1.0))
    for context, result in (("context", "noise_pred_cond"), ("context_null", "noise_pred_uncond")):
        text_LD = expected[context]
        text_BLD = pad(text_LD, (0, 0, 0, MAX_TOKENS - len(text_LD)))[None]
        velocity_BCTHW = transformer(**inputs, encoder_hidden_states=text_BLD, return_dict=False)[0]
        assert_close(velocity_BCTHW[0], expected[f"{step}.{result}"], 1e-4)


def transformer_inputs(expected, step, context_scale):
    """Arguments of the transformer besides the text."""
    latents_CTHW = expected[f"{step}.latent_model_input"]
    if "y" in expected:
        latents_CTHW = torch.cat([latents_CTHW, expected["y"]])
    inputs = {"hidden_states": latents_CTHW[None], "timestep": expected[f"{step}.timestep"]}
    if "clip_fea" in expected:
        inputs["encoder_hidden_states_image"] = expected["clip_fea"]
    if "vace_context" in expected:
        inputs["control_hidden_states"] = expected["vace_context"][None]
        inputs["control_hidden_states_scale"] = torch.full((2,), float(context_scale))
    return inputs


@pytest.mark.parametrize("run", RUNS)
@torch.inference_mode()
def test_vae_decodes(run):
    vae, expected = load(case_of(run).vae), outputs_of(run)
    mean_BCTHW, std_BCTHW = statistics(vae)
    latents_BCTHW = expected["final_latents"][None] * std_BCTHW + mean_BCTHW
    video_CFHW = vae.decode(latents_BCTHW, return_dict=False)[0][0]
    if "video" in expected:
        assert_close(video_CFHW, expected["video"], 2e-3)
    if "video_last_frame" in expected:
        assert_close(video_CFHW[:, -1], expected["video_last_frame"], 2e-3)
    if "video_frames_0_40_80" in expected:
        frames_CFHW = expected["video_frames_0_40_80"]
        frames_CFHW = frames_CFHW if frames_CFHW.shape[1] == 3 else frames_CFHW.transpose(0, 1)
        assert_close(video_CFHW[:, [0, 40, 80]], frames_CFHW, 2e-3)


@pytest.mark.parametrize("run", ["ti2v-5B/runs/i2v", "ti2v-5B/runs/i2v_dpmpp"])
@torch.inference_mode()
def test_vae_of_wan22_encodes(run):
    vae, expected = load(case_of(run).vae), outputs_of(run)
    latents_CTHW = encode(vae, expected["vae_input_first_frame"])
    assert_close(latents_CTHW, expected["image_latent"], 1e-4)


@pytest.mark.parametrize("run", [run for run in RUNS if run.startswith(("i2v-", "flf2v-"))])
@torch.inference_mode()
def test_vae_of_wan21_encodes(run):
    vae, expected = load(case_of(run).vae), outputs_of(run)
    latents_CTHW = encode(vae, vae_video(expected))
    num_mask_channels = 4
    assert_close(latents_CTHW, expected["y"][num_mask_channels:], 2e-3)


def vae_video(expected):
    """What the official code encodes: given frames at their ends, zeros between."""
    num_frames = 1 + 4 * (expected["y"].shape[1] - 1)
    if "vae_input_first_frame" in expected:
        first_CFHW, last_CFHW = expected["vae_input_first_frame"], None
    else:
        first_CFHW, last_CFHW = (expected[f"vae_input_{name}"][:, None] for name in ("first", "last"))
    video_CFHW = first_CFHW.new_zeros(3, num_frames, *first_CFHW.shape[2:])
    video_CFHW[:, :1] = first_CFHW
    if last_CFHW is not None:
        video_CFHW[:, -1:] = last_CFHW
    return video_CFHW


def encode(vae, video_CFHW):
    mean_BCTHW, std_BCTHW = statistics(vae)
    latents_BCTHW = vae.encode(video_CFHW[None]).latent_dist.mode()
    return ((latents_BCTHW - mean_BCTHW) / std_BCTHW)[0]


def statistics(vae):
    return (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))


@pytest.mark.parametrize("run", [run for run in RUNS if run.startswith(("i2v-14B", "flf2v-"))])
@torch.inference_mode()
def test_image_features(run):
    images = load_file(GOLDEN / run / "inputs.safetensors")
    names = ["image"] if "image" in images else ["first_frame", "last_frame"]
    names = names[:1] if "other_size" in run else names  # the official code crops the other image before
    encoder = load(case_of(run).image_encoder)
    pixels_BCHW = torch.cat([clip_pixels(images[name]) for name in names])
    features_BLD = encoder(pixels_BCHW, output_hidden_states=True).hidden_states[-2]
    assert_close(features_BLD, outputs_of(run)["clip_fea"][: len(names)], 1e-4)


def clip_pixels(image_HWC):
    """Official preprocessing: squashed to 224x224, bicubic without antialiasing, then normalised."""
    image_BCHW = (image_HWC.permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    image_BCHW = interpolate(image_BCHW, size=(224, 224), mode="bicubic", align_corners=False) * 0.5 + 0.5
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    return (image_BCHW - mean) / std


# Loading as such


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_as_from_pretrained_of_the_same_weights(tmp_path, case, dtype):
    for number, component in enumerate(case_of(case).components()):
        place = str(tmp_path / str(number))
        load(component).save_pretrained(place)
        config = json.loads(Path(place, "config.json").read_text())
        files = tuple(str(file) for file in sorted(Path(place).glob("*.safetensors")))
        saved = dataclasses.replace(component, layout="diffusers", path=place, files=files, config=config)
        assert network_class(saved) is network_class(component)
        assert_same(load(component, dtype), load(saved, dtype))


def assert_same(found, expected):
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = dict(getattr(found, kind)()), dict(getattr(expected, kind)())
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert ours[name].dtype == tensor.dtype, name
            assert ours[name].is_contiguous() == tensor.is_contiguous(), name
            assert torch.equal(ours[name], tensor), name
    assert not found.training
    assert not expected.training


def test_bfloat16_keeps_norms_and_modulation_in_float32():
    transformer = load(case_of("t2v-1.3B").transformers["single"], torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in transformer.named_parameters()}
    assert kinds["blocks.0.scale_shift_table"] == kinds["blocks.0.norm2.weight"] == torch.float32
    assert kinds["condition_embedder.time_embedder.linear_1.weight"] == torch.float32
    assert kinds["blocks.0.attn1.to_q.weight"] == kinds["proj_out.weight"] == torch.bfloat16


@pytest.mark.parametrize("case", CASES)
def test_names_and_arguments_make_a_whole_network(case):
    for component in case_of(case).components():
        network, config = network_class(component), network_config(component)
        network = (
            network(network.config_class(**config)) if hasattr(network, "config_class") else network(**config)
        )
        tensors = dict(iter_tensors(component))
        result = network.load_state_dict(tensors, strict=False)
        assert result.unexpected_keys == []
        assert set(result.missing_keys) <= {"encoder.embed_tokens.weight"}


def test_a_network_of_the_diffusers_layout(tiny):
    for component in open_checkpoint(str(tiny("i2v-14b-480p"))).components():
        network = load(component)
        names = dict(iter_tensors(component)).keys()
        assert set(network.state_dict()) - names <= {"encoder.embed_tokens.weight"}
        assert names <= set(network.state_dict())


def test_vace_layers_are_spread_evenly_without_config(tmp_path):
    component = case_of("vace-1.3B").transformers["single"]
    config = {name: value for name, value in component.config.items() if name != "vace_layers"}
    found = network_config(dataclasses.replace(component, config=config))
    assert found["vace_layers"] == network_config(component)["vace_layers"] == [0, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("blocks.1.ffn.2.bias"), r"lack blocks\.1\.ffn\.net\.2\.bias"),
        (lambda tensors: tensors.update(other=torch.ones(1)), "has a tensor other, which has no place"),
        (
            lambda tensors: tensors.update({"blocks.1.modulation": torch.ones(1, 6, 3)}),
            r"scale_shift_table in .*/diffusion_pytorch_model.safetensors has shape \[1, 6, 3\], "
            r"needed is \[1, 6, 80\]",
        ),
        (
            lambda tensors: tensors.update({"blocks.0.strange.weight": torch.ones(1)}),
            r"has a tensor blocks\.0\.strange\.weight",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, change, words):
    folder = shutil.copytree(GOLDEN / "t2v-1.3B/checkpoint", tmp_path / "broken")
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(ConfigError, match=words) as error:
        load(open_checkpoint(str(folder)).transformers["single"])
    assert str(file) in str(error.value)


@pytest.mark.parametrize("name", ["Wan2.1_VAE", "models_t5_umt5-xxl-enc-bf16"])
@pytest.mark.parametrize("way", ["safetensors", "legacy"])
def test_other_ways_to_store_a_pth(tmp_path, name, way):
    folder = shutil.copytree(GOLDEN / "t2v-1.3B/checkpoint", tmp_path / "other")
    file = folder / f"{name}.pth"
    tensors = torch.load(file, weights_only=True)
    if way == "legacy":
        torch.save(tensors, file, _use_new_zipfile_serialization=False)
    else:
        file.unlink()
        save_file(tensors, file.with_suffix(".safetensors"))
    role = "vae" if "VAE" in name else "text_encoder"
    assert_same(load(getattr(open_checkpoint(str(folder)), role)), load(getattr(case_of("t2v-1.3B"), role)))


def test_a_damaged_legacy_pickle_is_told_at_loading(tmp_path):
    folder = shutil.copytree(GOLDEN / "t2v-1.3B/checkpoint", tmp_path / "broken")
    file = folder / "Wan2.1_VAE.pth"
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:200_000])
    with pytest.raises(ConfigError, match=r"Wan2\.1_VAE\.pth does not load"):
        load(open_checkpoint(str(folder)).vae)


def test_a_network_that_the_sizes_do_not_make():
    component = case_of("vace-1.3B").transformers["single"]
    broken = dataclasses.replace(component, config=component.config | {"vace_layers": [0, 9]})
    with pytest.raises(ConfigError, match=r"make no WanVACETransformer3DModel \(VACE layers \[0, 9\] exceed"):
        load(broken)


def test_image_encoders_that_older_libraries_saved(tiny, tmp_path):
    checkpoint = open_checkpoint(str(tiny("i2v-14b-480p")))
    folder = shutil.copytree(checkpoint.path, tmp_path / "older")
    file = folder / "image_encoder/model.safetensors"
    save_file(
        {f"vision_model.{name}": tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"}
    )
    older = open_checkpoint(str(folder)).image_encoder
    assert_same(load(older), load(checkpoint.image_encoder))
    assert dict(iter_tensors(older)).keys() == dict(iter_tensors(checkpoint.image_encoder)).keys()
