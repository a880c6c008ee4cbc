"""Layers that run from their codes and keep no dense weight."""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from vqzoo.compression.decode import (
    apply,
    decode,
    moved,
    reconstruct,
    retuned,
    trainable,
)
from vqzoo.compression.products.convolutions import convolve, is_plain_convolution
from vqzoo.compression.products.linear import is_plain_linear, multiply
from vqzoo.compression.products.packed import unpacked
from vqzoo.compression.products.prepared import Prepared, prepare
from vqzoo.compression.products.tiles import tiles_of
from vqzoo.errors import PluginError
from vqzoo.numerics.tracing import holds_values, is_recorded, is_traced, outside_transforms
from vqzoo.plugin.code import Floats, MethodCode
from vqzoo.plugin.manager import Plugins

# Of the largest weight: devices round a product of factors differently.
_SAME_WEIGHT = 1e-5


class CodedLayer(nn.Module):
    """A layer whose weight is a code.

    `run_from_code` makes one of a layer in place: the layer's class becomes a subclass of
    `CodedLayer` and of the class that it had. It keeps its forward pass, attributes and hooks. Its
    state dict is that of the dense layer.

    A Linear multiplies with its method's `multiply`, without gradients, or with its `apply`, if the
    method overrides them. Otherwise it, and a convolution, decodes a few rows of
    its weight at a time, without gradients and if the method can. Any other layer runs its forward
    pass with a weight that is decoded when the pass reads it.

    Attributes:
        replaces: the class that the layer had.
    """

    replaces: ClassVar[type[nn.Module]]
    _compressed: MethodCode
    _plugins: Plugins
    _shape: torch.Size
    _dtype: torch.dtype

    @property
    def params(self) -> nn.ParameterDict:
        """The code's trainable floats as float32 parameters, frozen until `requires_grad_`.

        They are named by their paths, "/codebook" or "/child/part" (a ParameterDict cannot have the
        key "values"). The state dict does not have them: it has the weight that they decode to. If
        they are as many as the weights, they are made when they are first read.
        """
        if "params" not in self._modules:
            self.make_params()
        return cast(_Floats, self._modules["params"])

    def make_params(self) -> None:
        """Make `params` anew, from the code."""
        self._modules["params"] = _Floats(
            {
                "/" + name.replace(".", "/"): nn.Parameter(tensor.clone(), requires_grad=False)
                for name, tensor in trainable(self._compressed, self._plugins).items()
            }
        )

    @property
    def compressed(self) -> MethodCode:
        """The code with the current values of `params`, rounded to its storage dtypes."""
        return unpacked(retuned(self._compressed, self.floats()))

    @property
    def codes(self) -> MethodCode:
        """The code with the values that its floats had when it became the layer's."""
        return unpacked(self._compressed)

    def change_codes(self, compressed: MethodCode) -> None:
        """Take the integers of another code with the same parts; `params` stay as they are."""
        self._compressed = compressed

    @property
    def weight(self) -> Tensor:
        """The dense weight, decoded at each access; differentiable while `params` are trained.

        A weight that is assigned to the layer, or put in its place by
        `torch.func.functional_call`, takes precedence over the code.
        """
        assigned = self._parameters.get("weight")
        if assigned is not None:
            return assigned
        params = self._held_params().values()
        if is_recorded() or not all(map(holds_values, params)):
            return self._shaped(self._traced())
        if torch.is_grad_enabled() and any(p.requires_grad for p in params):
            return self._shaped(reconstruct(self._compressed, self.floats(), self._plugins))
        with outside_transforms():
            matrix = decode(self._compressed, self._plugins, params=self.floats())
            return nn.Parameter(self._shaped(matrix), requires_grad=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's forward pass."""
        answer = self._answer(*args, **kwargs)
        if answer is not None:
            return answer
        if not self._multiplies_by_code():
            return super().forward(*args, **kwargs)
        product = apply(self._compressed, self.floats(), self._plugins, *args, **kwargs)
        bias = self._parameters["bias"]
        return product if bias is None else product + bias

    def extra_repr(self) -> str:
        """What the layer says of itself, and the method of its code."""
        return ", ".join(filter(None, [super().extra_repr(), f"code={self._compressed.method}"]))

    def _multiplies_by_code(self) -> bool:
        method = self._plugins.method(self._compressed.method).item
        return self._is_plain_linear() and method.applies

    def _is_plain_linear(self) -> bool:
        plain = is_plain_linear(self.replaces) and self._dtype == torch.float32
        return plain and self._parameters.get("weight") is None

    def _answer(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """The answer by the method's kernels, or by a few rows of the weight at a time, where they
        see all that torch would do with it."""
        if kwargs or len(args) != 1 or not _is_plain(args[0], self._dtype):
            return None
        params = self._held_params()
        frozen = not any(values.requires_grad for values in params.values())
        if not frozen or self._parameters.get("weight") is not None:
            return None
        if is_plain_linear(self.replaces):
            prepared, x = self._prepared(params), args[0].detach()
            tiles = None if self._multiplies_by_code() else tiles_of(prepared, x.device)
            return multiply(prepared, tiles, x, self._parameters["bias"])
        if is_plain_convolution(self.replaces):
            x = args[0].detach()
            tiles = tiles_of(self._prepared(params), x.device)
            if tiles is not None:
                with torch.no_grad():
                    return convolve(self, self.replaces, self._shape, tiles, x)
        return None

    def _traced(self) -> Tensor:
        """The matrix, from operations that torch can trace.

        Raises:
            PluginError: the method has others.
        """
        try:
            return reconstruct(self._compressed, self.floats(), self._plugins)
        except PluginError as error:
            raise PluginError(
                f"torch cannot trace the decoding of {self._compressed.method}: trace the network "
                f"with decoded weights, vqzoo.load(..., mode='decoded') ({error})"
            ) from error

    def _shaped(self, matrix: Tensor) -> Tensor:
        return matrix.view(self._shape).to(self._dtype)

    def floats(self) -> dict[str, Tensor]:
        """`params` in float32, as far as they have been made, by their names in `trainable`."""
        held = self._held_params().items()
        return {name[1:].replace("/", "."): tensor.float() for name, tensor in held}

    def _held_params(self) -> Mapping[str, Tensor]:
        """`params`, as far as they have been made."""
        params = self._modules.get("params")
        if params is None:
            return {}
        held = cast(dict[str, Tensor], params._parameters)  # takes less time than its items
        return held if len(held) == len(self.params) else dict(self.params.items())

    def _prepared(self, params: Mapping[str, Tensor]) -> Prepared:
        """What this pass and the last one have in common.

        It is made anew if the code is another one, or its floats lie elsewhere. They are read where
        they lie, so that what was written there since counts.
        """
        places = [values.data_ptr() for values in params.values()]
        kept = self.__dict__.get("_kept")
        if kept is not None and kept[0] is self._compressed and kept[1] == places:
            return cast(Prepared, kept[2])
        prepared = prepare(self._compressed, self._plugins, self.floats())
        if all(values.dtype == torch.float32 for values in params.values()):
            self.__dict__["_kept"] = (self._compressed, places, prepared)
        return prepared

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CodedLayer":
        """Move the codes too, and convert the decoded weight, for `to`, `half` and the like."""
        super()._apply(fn, recurse)
        like = fn(torch.empty(0, dtype=self._dtype))
        self._compressed, self._dtype = moved(self._compressed, like.device), like.dtype
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        weight = self.weight
        destination[prefix + "weight"] = weight if keep_vars else weight.detach()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load everything but the weight, which must be the one that the layer has."""
        key = prefix + "weight"
        rest = {name: value for name, value in state_dict.items() if name != key}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if key not in state_dict:
            missing_keys.append(key)
        elif not _same_weight(state_dict[key], self.weight):
            error_msgs.append(
                f"{key} differs from the weight that the layer's code decodes to: load the state "
                "dict into a network with dense weights, vqzoo.load(..., mode='decoded')"
            )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle the class that the layer had: that of a coded layer has no import path."""
        _, _, state, *_ = cast(tuple[Any, ...], super().__reduce_ex__(protocol))
        state = {name: value for name, value in state.items() if name != "_kept"}
        return _new_coded, (self.replaces,), state


class _Floats(nn.ParameterDict):
    """Parameters that are not in the state dict."""

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        pass


def run_from_code(
    model: nn.Module, layer: str, compressed: MethodCode, plugins: Plugins
) -> nn.Module:
    """Turn a layer into a `CodedLayer`, in place, and release its weight.

    Args:
        model: it is changed in place.
        layer: the layer's module path, "" for the model itself.
        compressed: the code of its weight, `packed` or not.
        plugins: the installed methods.

    Returns:
        The model.

    Raises:
        ValueError: the layer has no weight.
    """
    module = model.get_submodule(layer)
    weight = module._parameters.get("weight")
    if weight is None:
        raise ValueError("the layer has no weight")
    module._parameters["weight"] = None
    kind: Any = type(module)  # for mypy, classes are not hashable
    module.__class__ = _coded_class(kind)
    coded = cast(CodedLayer, module)
    coded._shape, coded._dtype, coded._plugins = weight.shape, weight.dtype, plugins
    # A weight on the meta device has no place to move the code to.
    coded._compressed = compressed if weight.is_meta else moved(compressed, weight.device)
    if _float_count(compressed) < weight.numel():
        coded.make_params()
    return model


def _float_count(compressed: MethodCode) -> int:
    code = compressed.code
    parts = (part.stored.numel() for part in code.parts.values() if isinstance(part, Floats))
    return sum(parts) + sum(map(_float_count, code.children.values()))


def with_dense_weights(model: nn.Module) -> nn.Module:
    """A copy of a model in which coded layers are dense again; the model itself if none is coded.

    The copy's other weights are copied, too.
    """
    if not any(isinstance(module, CodedLayer) for module in model.modules()):
        return model
    network = copy.deepcopy(model)
    for module in list(network.modules()):
        if isinstance(module, CodedLayer):
            _make_dense(module)
    return network


def _make_dense(layer: CodedLayer) -> None:
    weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
    layer._modules.pop("params", None)
    layer.__dict__.pop("_kept", None)
    del layer._shape, layer._dtype, layer._plugins, layer._compressed
    module = cast(nn.Module, layer)
    module.__class__ = layer.replaces
    module._parameters["weight"] = weight


@cache
def _coded_class(kind: type) -> type[CodedLayer]:
    """The class of coded layers that take the place of layers of the class `kind`.

    Its module is that of `kind`: torch.fx treats layers of torch.nn as leaves.
    """
    namespace = {"replaces": kind, "__module__": kind.__module__, "__doc__": CodedLayer.__doc__}
    return cast(type[CodedLayer], type(f"Coded{kind.__name__}", (CodedLayer, kind), namespace))


def _new_coded(kind: Any) -> CodedLayer:
    """A coded layer without attributes, for pickle to fill."""
    coded = _coded_class(kind)
    return coded.__new__(coded)


def _is_plain(x: Any, dtype: torch.dtype) -> bool:
    """Whether x is values of this dtype alone: no gradient, tangent, transform of `torch.func` or
    trace needs torch's own operations, and no cast is due."""
    if type(x) not in (Tensor, nn.Parameter) or x.is_meta or x.dtype != dtype:
        return False
    if is_traced() or torch.is_autocast_enabled(x.device.type):
        return False
    if torch.is_grad_enabled() and x.requires_grad:
        return False
    return torch.autograd.forward_ad.unpack_dual(x).tangent is None


def _same_weight(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    first = first.to(second.device, second.dtype)
    return bool((first - second).abs().max() <= _SAME_WEIGHT * second.abs().max())
