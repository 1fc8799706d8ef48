"""Load one network of a checkpoint: only its own files, through mmap, complete or not at all.

Knows which class a component is and how it is filled; `wanray.models.official` knows the official names.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, ModelMixin, WanTransformer3DModel, WanVACETransformer3DModel
from torch.distributed.tensor import DTensor
from transformers import CLIPVisionModel, UMT5EncoderModel

from wanray.checkpoint import Component
from wanray.checkpoint.shapes import TensorShapes, read_shapes
from wanray.errors import ConfigError
from wanray.models.fsdp import as_placed, own_memory, own_part
from wanray.models.official import RULES
from wanray.models.official.tensors import read_tensors
from wanray.models.official.transformer import is_vace

CLASSES = {"text_encoder": UMT5EncoderModel, "image_encoder": CLIPVisionModel, "vae": AutoencoderKLWan}
"""By role; transformers have two classes."""
ALIGNMENT = 64
"""Bytes, as torch allocates on the CPU."""
ALIGNED_BYTES = 2**20


def load_network(
    component: Component,
    dtype: torch.dtype,
    device: str,
    keep_float32: Callable[[str], bool] | None = None,
    *,
    aligned: bool = True,
    prepare: Callable[[Any], Any] | None = None,
) -> Any:
    """The network of `component`, ready for inference.

    Parameters are `dtype`, except those that the class keeps in float32 and those that `keep_float32` says.
    aligned: make results independent of where tensors lie in their files; else memory is as diffusers and
    transformers leave it, with whose results those of CPU kernels are then equal to the last bit.
    prepare: makes what is filled and returned out of the network while it is empty, with parameters of the
    same names, which may be divided among ranks: then each rank reads its part.

    Raises:
        ConfigError: the files do not hold exactly what the network needs.
    """
    if missing := [file for file in component.files if not Path(file).is_file()]:
        raise ConfigError(
            f"model.path: {missing[0]} is not on node {socket.gethostname()}: put the checkpoint where all "
            "nodes find it under one path (for a hub, share its cache)"
        )
    if component.layout == "official" or prepare is not None:
        network = _stream(component, dtype, device, keep_float32 or _never, prepare)
    else:
        network = _load_diffusers(component, dtype)
        for name, tensor in iter_tensors(component) if keep_float32 else ():
            if keep_float32 is not None and keep_float32(name):
                _assign(network, name, tensor.float())
    network = network.eval().requires_grad_(False).to(device)
    if aligned:
        _align(network)
    return network


def refill(network: Any, component: Component, tell: Callable[[], object]) -> None:
    """Write the weights of `component` over those of `network`, which another of the same shapes had filled.

    tell: called after each tensor.

    Raises:
        ConfigError: the files do not hold exactly what the network needs.
    """
    places = dict(network.named_parameters(remove_duplicate=False))
    expected = {name: place.shape for name, place in places.items()}
    with torch.no_grad():
        for name, tensor in iter_tensors(component):
            _check_place(component, name, tensor, expected)
            place = places.pop(name)
            own_memory(place).copy_(own_part(tensor, place))
            tell()
    _refuse_missing(component, places)


def _never(name: str) -> bool:
    return False


def network_class(component: Component) -> Any:
    """The class of diffusers or transformers that `component` is."""
    if component.role != "transformer":
        return CLASSES[component.role]
    if component.layout == "official":
        return WanVACETransformer3DModel if is_vace(_shapes(component)) else WanTransformer3DModel
    is_control = component.config.get("_class_name") == WanVACETransformer3DModel.__name__
    return WanVACETransformer3DModel if is_control else WanTransformer3DModel


def blocks_of(transformer: Any) -> tuple[Any, ...]:
    """The blocks of a transformer, those of a VACE's control branch too."""
    return (*transformer.blocks, *getattr(transformer, "vace_blocks", ()))


def network_config(component: Component) -> dict[str, Any]:
    """Arguments of `network_class`, or of its `config_class` where transformers has it."""
    if component.layout == "official":
        return RULES[component.role].config(_shapes(component), component.config)
    return {name: value for name, value in component.config.items() if not name.startswith("_")}


def iter_tensors(component: Component) -> Iterator[tuple[str, torch.Tensor]]:
    """Names in the network and tensors as stored, through mmap, one file after the other.

    Tied tensors come once. Official tensors without a place in the network keep their names.
    """
    if component.layout == "official":
        config, convert = network_config(component), RULES[component.role].convert
        for name, tensor in read_tensors(component.files):
            yield from convert(name, tensor, config)
    else:
        for name, tensor in read_tensors(component.files):
            yield name.removeprefix("vision_model."), tensor


def _shapes(component: Component) -> TensorShapes:
    return read_shapes(component.path, component.files)


def _load_diffusers(component: Component, dtype: torch.dtype) -> Any:
    # both libraries fill tensors that the files lack with random numbers, or fail in their own words
    try:
        loaded, info = network_class(component).from_pretrained(
            component.path,
            dtype=dtype,
            local_files_only=True,
            low_cpu_mem_usage=True,
            output_loading_info=True,
        )
    except (NotImplementedError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"model.path is damaged: {component.path} does not load: {reason}") from error
    _refuse_missing(component, info["missing_keys"])
    return loaded


def _stream(
    component: Component,
    dtype: torch.dtype,
    device: str,
    keep_float32: Callable[[str], bool],
    prepare: Callable[[Any], Any] | None,
) -> Any:
    """Fill the empty network tensor by tensor: no more than one is copied in host memory at a time."""
    network = empty_network(component)
    expected = {name: value.shape for name, value in network.named_parameters(remove_duplicate=False)}
    tied = set(getattr(network, "_tied_weights_keys", None) or ())
    kept = _kept_in_float32(type(network), dtype)

    def kind_of(name: str) -> torch.dtype:
        return torch.float32 if kept & set(name.split(".")) or keep_float32(name) else dtype

    if prepare is not None:
        for name, parameter in network.named_parameters():
            parameter.data = parameter.data.to(kind_of(name))
        network = prepare(network)
    filled = set()
    for name, tensor in iter_tensors(component):
        _check_place(component, name, tensor, expected)
        place = network.get_parameter(name)
        # first the device, then the dtype: a GPU converts faster, with the same result
        part = own_part(tensor, place).to(device).to(kind_of(name)).contiguous()
        _assign(network, name, part)
        filled.add(name)
    _refuse_missing(component, expected.keys() - filled - tied)
    if tied:
        network.tie_weights()
    return network


def empty_network(component: Component) -> Any:
    """The network of `component` with its buffers but without weights.

    Raises:
        ConfigError: its configuration, or what the tensors tell, makes none.
    """
    network: Any = network_class(component)
    config = network_config(component)
    try:
        with init_empty_weights(include_buffers=False):
            if hasattr(network, "config_class"):  # transformers
                return network(network.config_class(**config))
            return network.from_config(config)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"model.path is damaged: the tensors of {component.path} make no {network.__name__} ({error}); "
            "check config.json, or download the checkpoint again"
        ) from error


def _align(network: Any) -> None:
    """Copy small mapped tensors to where CPU kernels would have put them.

    Products with vectors and small matrices round by the alignment of their operands, and in a file it is
    anything: without this, equal weights in two files give two videos. Large matrices are packed first.
    """
    for tensor in network.parameters():
        if isinstance(tensor.data, DTensor) or tensor.device.type != "cpu":
            continue  # what is gathered, or uploaded, is copied anyway
        if tensor.data_ptr() % ALIGNMENT and tensor.nbytes < ALIGNED_BYTES:
            tensor.data = tensor.data.clone()


def _assign(network: Any, name: str, part: torch.Tensor) -> None:
    """Put `part`, what this process holds of a parameter, in the place of it."""
    value = as_placed(part, network.get_parameter(name))
    module, _, leaf = name.rpartition(".")
    network.get_submodule(module).register_parameter(leaf, torch.nn.Parameter(value, requires_grad=False))


def _kept_in_float32(network: Any, dtype: torch.dtype) -> set[str]:
    """Parts of names whose parameters stay float32, as `from_pretrained` of either library decides.

    diffusers means every dtype by its list, transformers only float16.
    """
    if issubclass(network, ModelMixin) or dtype == torch.float16:
        return set(network._keep_in_fp32_modules or ())
    return set()


def _check_place(component: Component, name: str, tensor: torch.Tensor, expected: dict[str, Any]) -> None:
    if name not in expected:
        raise ConfigError(
            f"model.path is damaged: {component.path} has a tensor {name}, which has no place in the "
            f"{component.role.replace('_', ' ')}; download the checkpoint again"
        )
    if tensor.shape != expected[name]:
        raise ConfigError(
            f"model.path is damaged: {name} in {component.path} has shape {list(tensor.shape)}, "
            f"needed is {list(expected[name])}; download the checkpoint again"
        )


def _refuse_missing(component: Component, names: Iterable[str]) -> None:
    if missing := sorted(names):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(
            f"model.path is damaged: the weights in {component.path} lack {missing[0]}{more}; copy them again"
        )
