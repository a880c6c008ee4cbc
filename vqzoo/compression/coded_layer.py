"""Layers that run from their codes and keep no dense weight."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.compression.decode import apply, decode, moved, reconstruct, retuned, trainable
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins


class CodedLayer(nn.Module):
    """A layer whose weight is a code.

    A Linear multiplies with its method's `apply`, if the method overrides it. Any other layer runs
    its own forward pass with a weight that is decoded for this pass and then freed.

    Attributes:
        original: the layer without its weight.
        params: the code's trainable floats as float32 parameters, frozen until `requires_grad_`;
            named by their paths, "/codebook" or "/child/part" (a ParameterDict cannot have the key
            "values").
    """

    def __init__(self, original: nn.Module, compressed: MethodCode, plugins: Plugins) -> None:
        super().__init__()
        weight = original._parameters["weight"]
        if weight is None:
            raise ValueError("the layer has no weight")
        original._parameters["weight"] = None
        self.original = original
        self._shape, self._dtype = weight.shape, weight.dtype
        self._plugins = plugins
        # A weight on the meta device has no place to move the code to.
        self._compressed = compressed if weight.is_meta else moved(compressed, weight.device)
        self.params = nn.ParameterDict(
            {
                "/" + name.replace(".", "/"): nn.Parameter(tensor.clone(), requires_grad=False)
                for name, tensor in trainable(self._compressed, plugins).items()
            }
        )

    @property
    def compressed(self) -> MethodCode:
        """The code with the current values of `params`, rounded to its storage dtypes."""
        return retuned(self._compressed, self._tensors())

    @property
    def weight(self) -> Tensor:
        """The dense weight, decoded at each call; differentiable while `params` are trained."""
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.params.values()):
            matrix = reconstruct(self._compressed, self._tensors(), self._plugins)
        else:
            matrix = decode(self._compressed, self._plugins, params=self._tensors())
        return matrix.view(self._shape).to(self._dtype)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's forward pass."""
        method = self._plugins.method(self._compressed.method).item
        if type(self.original) is nn.Linear and method.applies and self._dtype == torch.float32:
            product = apply(self._compressed, self._tensors(), self._plugins, *args)
            bias = self.original.bias
            return product if bias is None else product + bias
        return torch.func.functional_call(self.original, {"weight": self.weight}, args, kwargs)

    def _tensors(self) -> dict[str, Tensor]:
        """`params` in float32, by their names in `trainable`."""
        named = {name[1:].replace("/", "."): tensor for name, tensor in self.params.items()}
        return {name: tensor.float() for name, tensor in named.items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CodedLayer":
        """Move the codes too, and convert the decoded weight, for `to`, `half` and the like."""
        super()._apply(fn, recurse)
        like = fn(torch.empty(0, dtype=self._dtype))
        self._compressed, self._dtype = moved(self._compressed, like.device), like.dtype
        return self


def run_from_code(
    model: nn.Module, layer: str, compressed: MethodCode, plugins: Plugins
) -> nn.Module:
    """Replace a layer by a `CodedLayer`.

    Args:
        model: it is changed in place.
        layer: the layer's module path, "" for the model itself.
        compressed: the code of its weight.
        plugins: the installed methods.

    Returns:
        The model; the new layer if `layer` is the model itself.
    """
    coded = CodedLayer(model.get_submodule(layer), compressed, plugins)
    if not layer:
        return coded
    parent, _, name = layer.rpartition(".")
    setattr(model.get_submodule(parent), name, coded)
    return model
