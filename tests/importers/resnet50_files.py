"""ResNet-50 as two papers' code publishes it, and the weights that this code decodes.

Layouts and decoding follow the repositories' descriptions, in torch: sub-vector lengths and numbers
of centroids differ with the kernel, the classifier's codes are int16, layers that are not
compressed stand there as floats, batch norms have two vectors.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

ARCHITECTURE = "resnet50"
# As ResNet-50, but thin, and with as few blocks as show each kind of them.
MODEL_ARGS: dict[str, Any] = {"layers": [2, 1, 1, 1], "channels": [8, 16, 24, 32]}

State = dict[str, Tensor]
STATISTICS = {"running_mean": 0, "running_var": 1, "num_batches_tracked": 0}


@dataclass(frozen=True)
class Regime:
    """How a paper's code compresses.

    Attributes:
        large: whether a sub-vector is two kernels of 3 × 3, not one.
        pointwise: length of a sub-vector where the kernel is 1 × 1.
        dense: modules that stay floats.
    """

    large: bool
    pointwise: int
    dense: tuple[str, ...] = ("conv1",)


SMALL, LARGE = Regime(large=False, pointwise=4), Regime(large=True, pointwise=8)
SEMI_SUPERVISED = Regime(
    large=False, pointwise=4, dense=("conv1", "layer1.0.conv3", "layer1.0.downsample.0")
)


def random_state() -> State:
    """Random weights, and the statistics that both libraries' loaders set."""
    generator = torch.Generator().manual_seed(3)
    state = timm.create_model(ARCHITECTURE, **MODEL_ARGS).state_dict()
    for key, tensor in state.items():
        fixed = STATISTICS.get(key.rpartition(".")[2])
        state[key] = (
            torch.randn(tensor.shape, generator=generator)
            if fixed is None
            else torch.full_like(tensor, fixed)
        )
    return state


def codes_and_codebook(name: str, weight: Tensor, regime: Regime) -> tuple[Tensor, Tensor]:
    """Random codes (out, blocks) and a codebook (k, d) in float16: 1024 entries for the classifier,
    256 for convolutions, and no more than a quarter of the sub-vectors."""
    out, kernel = len(weight), weight.shape[2:].numel()
    d = regime.pointwise if kernel == 1 else kernel * (2 if regime.large else 1)
    if name == "fc":
        d = 4
    vectors = weight.numel() // d
    most = 1 << ((vectors // 4).bit_length() - 1)
    k = min(1024 if name == "fc" else 256, most)
    generator = torch.Generator().manual_seed(len(name) + vectors)
    codes = torch.randint(k, (out, vectors // out), generator=generator)
    return codes, torch.randn(k, d, generator=generator).half()


def _split(state: State, regime: Regime) -> tuple[list[str], list[str]]:
    """Names of compressed layers, and of batch norms."""
    modules = [key.rpartition(".")[0] for key in state if key.endswith(".weight")]
    layers = [name for name in modules if state[f"{name}.weight"].dim() > 1]
    norms = [name for name in modules if name not in layers]
    return [name for name in layers if name not in regime.dense], norms


def kill_the_bits(path: Path, regime: Regime) -> State:
    """Write a file as facebookresearch/kill-the-bits publishes ResNet-50.

    Returns:
        The state dict that its inference.py fills a network with.
    """
    state = random_state()
    layers, norms = _split(state, regime)
    content: dict[str, Any] = {}
    for name in (*regime.dense, *norms):
        content[name] = OrderedDict()
        for field in ("weight", "bias"):
            if (key := f"{name}.{field}") in state:
                content[name][field] = state[key].half()
                state[key] = content[name][field].float()
    content["fc_bias"] = {"bias": nn.Parameter(state["fc.bias"])}
    for name in layers:
        weight = state[f"{name}.weight"]
        codes, codebook = codes_and_codebook(name, weight, regime)
        assignments, blocks = codes.t().flatten(), codes.shape[1]
        is_conv = weight.dim() == 4
        content[name] = {
            "centroids": codebook,
            "assignments": assignments.short() if name == "fc" else assignments.byte(),
            "n_blocks": blocks,
            "is_conv": is_conv,
            "k": weight.shape[2] if is_conv else 1,
        }
        columns = codebook.float()[assignments].t().chunk(blocks, dim=1)
        state[f"{name}.weight"] = torch.cat(columns, dim=0).t().reshape(weight.shape)
    torch.save(content, path)
    return state


def permute_quantize_finetune(path: Path, regime: Regime, codebooks: torch.dtype) -> State:
    """Write a file as uber-research/permute-quantize-finetune does with ResNet-50.

    Args:
        path: the file.
        regime: lengths of sub-vectors.
        codebooks: float16, or float32 where its option says so.

    Returns:
        The state dict of the network that the library loads it into.
    """
    state = random_state()
    layers, _ = _split(state, regime)
    content: State = {}
    for key, tensor in state.items():
        name, _, field = key.rpartition(".")
        if field == "weight" and name in layers:
            codes, half = codes_and_codebook(name, tensor, regime)
            content[f"{name}.codes_matrix"] = codes.byte() if len(half) <= 256 else codes.short()
            codebook = half.float() * (1 if codebooks == torch.float16 else 1.0001)
            content[f"{name}.codebook"] = codebook.to(codebooks)
            vectors = codebook.index_select(0, codes.reshape(-1))
            state[key] = vectors.reshape(tensor.shape)
        elif field not in STATISTICS:
            content[key] = tensor
    torch.save(content, path)
    return state


def mask_r_cnn(path: Path, *, flat: bool) -> None:
    """Write parts of a file of Mask R-CNN, as both libraries publish one."""
    codes, codebook = torch.zeros(256, 64).byte(), torch.zeros(256, 4).half()
    names = ("backbone.body.layer1.0.conv3", "rpn.head.conv", "roi_heads.box_head.fc6")
    content: dict[str, Any] = {}
    for name in names:
        if flat:
            content |= {f"{name}.codes_matrix": codes, f"{name}.codebook": codebook}
        else:
            content[name] = {
                "centroids": codebook,
                "assignments": codes.flatten(),
                "n_blocks": 64,
                "is_conv": True,
                "k": 1,
            }
    bias = torch.zeros(256)
    content |= {"rpn.head.conv.bias": bias} if flat else {"biases": {"rpn.head.conv.bias": bias}}
    torch.save(content, path)
