"""Quantize a matrix as the core does, for tests of methods."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vqzoo.compression.check import check_code
from vqzoo.compression.options import validate_options
from vqzoo.plugin import Code, LayerContext, MethodCode, Quantizer
from vqzoo.plugin.manager import installed_plugins


def layer_context(shape: tuple[int, int], seed: int = 0) -> LayerContext:
    """A dense layer on the CPU, whose methods may call other methods."""

    def child(name: str, matrix: Tensor, given: Mapping[str, Any]) -> MethodCode:
        quantizer = installed_plugins().quantizers.get(name).item
        return MethodCode(name, fitted(quantizer, matrix, given)[0])

    return LayerContext(
        layer="fc",
        kind="linear",
        shape=shape,
        groups=1,
        seed=seed,
        device=torch.device("cpu"),
        note=lambda text: None,
        progress=lambda done, total: None,
        quantize=child,
    )


def fitted(
    quantizer: Quantizer, weight: Tensor, given: Mapping[str, Any], seed: int = 0
) -> tuple[Code, Any, list[str]]:
    """Code, options as used, and what was said about them."""
    shape = (weight.shape[0], weight.shape[1])
    notes: list[str] = []
    options = quantizer.fit(*shape, validate_options(quantizer, given), notes.append)
    code = quantizer.quantize(weight, options, layer_context(shape, seed))
    check_code(code, shape, quantizer, quantizer.name)
    return code, options, notes


def quantize(name: str, weight: Tensor, seed: int = 0, **options: Any) -> Code:
    """Quantize a matrix: `quantize("pq", weight, k=16)`."""
    quantizer = installed_plugins().quantizers.get(name).item
    return fitted(quantizer, weight, options, seed)[0]
