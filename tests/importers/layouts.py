"""Files as other libraries write them, of generated networks, and what those libraries decode.

The decoded weights come from numpy alone, from the layouts that the libraries document.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

ARCHITECTURE = "test_resnet"  # of timm: 0.5 million weights, convolutions, batch norms, one Linear

State = dict[str, Tensor]
Fields = dict[str, Any]


def network_state(seed: int = 0) -> State:
    """A state dict of the architecture with random values, running statistics included."""
    generator = torch.Generator().manual_seed(seed)
    state = timm.create_model(ARCHITECTURE).state_dict()
    for key, tensor in state.items():
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape, generator=generator)
            state[key] = values.abs() + 0.5 if key.endswith("running_var") else values
    return state


def sub_vector_length(key: str, weight: Tensor) -> int:
    """The length that the papers' code uses: two kernels, or 4 values where a kernel is one."""
    if weight.dim() == 2 or weight.shape[2] == 1:
        return 4
    return 2 * weight.shape[2] * weight.shape[3]


def _codes(
    random: np.random.Generator, weight: Tensor, d: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Codes (out, blocks) and a codebook (k, d); every code is used."""
    out = weight.shape[0]
    blocks = weight.numel() // out // d
    codes = random.integers(k, size=(out, blocks))
    codes.flat[:k] = np.arange(k)
    return codes, random.normal(size=(k, d)).astype(np.float16)


def _rows(codes: NDArray[np.int64], codebook: NDArray[np.float16], shape: torch.Size) -> Tensor:
    """A weight whose row i is codebook[codes[i, 0]], codebook[codes[i, 1]], ..."""
    values = np.stack([np.concatenate([codebook[code] for code in row]) for row in codes])
    return torch.from_numpy(values.astype(np.float32).reshape(tuple(shape)))


def _folded(state: State) -> State:
    """The state dict that both libraries' loaders give for batch norms without statistics."""
    folded = dict(state)
    for key in state:
        if key.endswith("running_mean"):
            folded[key] = torch.zeros_like(state[key])
        elif key.endswith("running_var"):
            folded[key] = torch.ones_like(state[key])
        elif key.endswith("num_batches_tracked"):
            folded[key] = torch.zeros_like(state[key])
    return folded


def _compressed_keys(state: State) -> list[str]:
    """The weights of all layers but the first one."""
    matrices = [key for key, tensor in state.items() if tensor.dim() > 1]
    return matrices[1:]


def kill_the_bits(
    path: Path, change: Callable[[dict[str, Fields]], None] = lambda content: None, k: int = 32
) -> State:
    """Write a file as facebookresearch/kill-the-bits does; the Linear has 512 centroids.

    Args:
        path: the file.
        change: changes its contents before they are written.
        k: centroids of the convolutions.

    Returns:
        The state dict that the library decodes.
    """
    random, state = np.random.default_rng(1), _folded(network_state())
    content: dict[str, Fields] = {}
    for key in _compressed_keys(state):
        name, weight = key.removesuffix(".weight"), state[key]
        size = 512 if name == "fc" else k
        d = sub_vector_length(key, weight)
        codes, codebook = _codes(random, weight, d, size)
        narrow = np.uint8 if size <= 256 else np.int16
        content[name] = {
            "centroids": torch.from_numpy(codebook),
            "assignments": torch.from_numpy(codes.T.reshape(-1).astype(narrow)),  # block by block
            "n_blocks": codes.shape[1],
            "is_conv": weight.dim() == 4,
            "k": weight.shape[2] if weight.dim() == 4 else 1,
        }
        state[key] = _rows(codes, codebook, weight.shape)
    content["fc_bias"] = {"bias": state["fc.bias"]}
    compressed = {"fc", *(key.removesuffix(".weight") for key in _compressed_keys(state))}
    for key, tensor in state.items():
        name, _, field = key.rpartition(".")
        if name not in compressed and field in ("weight", "bias"):
            state[key] = tensor.half().float()
            content.setdefault(name, {})[field] = tensor.half()
    change(content)
    torch.save(content, path)
    return state


def permute_quantize_finetune(
    path: Path, change: Callable[[State], None] = lambda content: None, *, statistics: bool
) -> State:
    """Write a file as uber-research/permute-quantize-finetune does.

    Args:
        path: the file.
        change: changes its contents before they are written.
        statistics: whether batch norms have running statistics, or those are folded.

    Returns:
        The state dict that the library decodes.
    """
    random = np.random.default_rng(2)
    state = network_state() if statistics else _folded(network_state())
    content = dict(state)
    for key in _compressed_keys(state):
        name, weight = key.removesuffix(".weight"), content.pop(key)
        codes, codebook = _codes(random, weight, sub_vector_length(key, weight), 64)
        content[f"{name}.codes_matrix"] = torch.from_numpy(codes.astype(np.uint8))
        content[f"{name}.codebook"] = torch.from_numpy(codebook)
        state[key] = _rows(codes, codebook, weight.shape)
    if not statistics:
        for key in list(content):
            if key.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked"):
                del content[key]
    change(content)
    torch.save(content, path)
    return state
