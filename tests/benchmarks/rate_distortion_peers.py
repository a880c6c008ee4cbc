"""Files that other tools make of a network, and the networks that these files decode to."""

import copy
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same_arg
from torch import Tensor, nn

from vqzoo.data.model_input import input_size

_GROUP = 16  # output channels that share a palette, as in coreai-opt's presets


def by_nncodec(dense: nn.Module, qp: int) -> tuple[int, nn.Module]:
    """NNCodec's stream (ISO/IEC 15938-17) with dependent quantization; it uses no images.

    Returns:
        The bytes of the stream, and the network with the weights that it decodes to.
    """
    from nncodec import nn as codec

    settings = {"qp": qp, "use_dq": True, "results": tempfile.gettempdir(), "verbose": False}
    stream = codec.encode(dense, {**settings, "bnf": False, "ioq": False})
    decoded = codec.decode(stream)
    network = copy.deepcopy(dense)
    state = {
        key: torch.as_tensor(np.array(decoded[key])).reshape(value.shape).to(value.dtype)
        if key in decoded
        else value
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return len(stream), network.eval()


def by_palettes(dense: nn.Module, bits: int) -> tuple[int, nn.Module]:
    """A Core ML package of weights palettized by coreai-opt, as its presets do it.

    A palette of 2^bits values serves 16 output channels, or the largest divisor of their number up
    to that; everything else is stored in float16.

    Returns:
        The bytes of all files of the package, and the network with palettized weights.
    """
    import coremltools
    from coreai_opt.common import ExportBackend
    from coreai_opt.palettization import KMeansPalettizer

    example = torch.zeros(1, *input_size(dense))
    padded = _with_fixed_padding(dense, example)
    palettizer = KMeansPalettizer(padded, _palettes(padded, bits))
    palettizer.prepare((example,))
    network = palettizer.finalize(backend=ExportBackend.CoreML).eval()
    program = coremltools.convert(
        torch.jit.trace(network, example),
        inputs=[coremltools.TensorType(shape=example.shape)],
        minimum_deployment_target=coremltools.target.iOS18,
        skip_model_load=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "network.mlpackage"
        program.save(str(package))
        count = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    return count, network


def _with_fixed_padding(dense: nn.Module, example: Tensor) -> nn.Module:
    """A copy that pads as TensorFlow does, by constants for the size of the example.

    timm computes these paddings from the size of each input. In a trace, that becomes arithmetic on
    shapes, which coremltools cannot convert.
    """
    network = copy.deepcopy(dense)
    paddings: dict[str, list[int]] = {}

    def note(name: str) -> Callable[[Conv2dSame, tuple[Tensor]], None]:
        def hook(layer: Conv2dSame, inputs: tuple[Tensor]) -> None:
            size = list(inputs[0].shape[-2:])
            window = (layer.kernel_size, layer.stride, layer.dilation)
            paddings[name] = pad_same_arg(size, *map(list, window))

        return hook

    layers = {
        name: module for name, module in network.named_modules() if isinstance(module, Conv2dSame)
    }
    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    for name, padding in paddings.items():
        layer = layers[name]
        layer.__class__ = nn.Conv2d  # the same layer, padded by the one before it
        network.set_submodule(name, nn.Sequential(nn.ZeroPad2d(tuple(padding)), layer))
    return network


def _palettes(dense: nn.Module, bits: int) -> object:
    """A configuration of coreai-opt in which each layer has groups that divide its channels."""
    from coreai_opt.palettization import (
        KMeansPalettizerConfig,
        ModuleKMeansPalettizerConfig,
        PalettizationSpec,
    )
    from coreai_opt.palettization.config import OpKMeansPalettizerConfig
    from coreai_opt.palettization.spec import PerGroupedChannelGranularity

    def grouped(channels: int) -> ModuleKMeansPalettizerConfig:
        spec = PalettizationSpec(
            n_bits=bits,
            granularity=PerGroupedChannelGranularity(axis=0, group_size=math.gcd(channels, _GROUP)),
        )
        states = dict.fromkeys(OpKMeansPalettizerConfig.get_default_state_spec(), spec)
        return ModuleKMeansPalettizerConfig(
            op_input_spec=None, op_output_spec=None, op_state_spec=states
        )

    layers = {
        name: grouped(module.weight.shape[0])
        for name, module in dense.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    return KMeansPalettizerConfig(global_config=grouped(_GROUP), module_name_configs=layers)
