"""Which batch norms follow a layer directly, and alone: a run shows every use of every tensor."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORM_KINDS = ("norm", "Norm")  # in the names of classes


def norms_behind_layers(model: nn.Module, images: Tensor) -> tuple[dict[str, str], dict[str, str]]:
    """Find the layers whose outputs go into a batch norm and nowhere else.

    The model runs once. A norm counts if its input is the very tensor that the layer's convolution
    or product returned, if no other operation takes that tensor, and if the weights of both are
    used once.

    Args:
        model: in eval mode.
        images: (images, channels, height, width), in the model's precision.

    Returns:
        Norm -> layer, and the other norms -> why they do not count, by module path.
    """
    modules = dict(model.named_modules())
    norms = {path: m for path, m in modules.items() if is_foldable(m)}
    layers = {path: m for path, m in modules.items() if _is_layer(m)}
    uses = _Uses()
    with _watched(norms | layers, uses), torch.no_grad(), uses:
        answer = model(images)
    uses.returned = {id(leaf) for leaf in tree_leaves(answer)}
    by_output = {
        id(output): path
        for path, outputs in uses.outputs.items()
        if path in layers
        for output in outputs
    }
    pairs: dict[str, str] = {}
    reasons = {path: "not a batch norm with statistics, a scale and a shift"
               for path, m in modules.items() if path not in norms and is_norm(m)}  # fmt: skip
    for path, norm in norms.items():
        inputs = uses.inputs[path]
        layer = by_output.get(id(inputs[0])) if len(inputs) == 1 else None
        if layer is None:
            reasons[path] = "does not directly follow a layer" if inputs else "was not reached"
        elif (reason := _obstacle(layers[layer], norm, inputs[0], uses)) is not None:
            reasons[path] = reason
        else:
            pairs[path] = layer
    return pairs, reasons


def is_foldable(module: nn.Module) -> bool:
    """Whether a module is a batch norm with running statistics, a weight and a bias, in float32."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return False
    tensors = module.weight, module.bias, module.running_mean, module.running_var
    return all(isinstance(t, Tensor) and t.dtype == torch.float32 for t in tensors)


def is_norm(module: nn.Module) -> bool:
    """Whether a module without children has parameters or buffers, and is a norm by its name."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(tensors) and any(kind in type(module).__name__ for kind in _NORM_KINDS)


def _is_layer(module: nn.Module) -> bool:
    kind = isinstance(module, (nn.Linear, *_CONVOLUTIONS))
    return kind and isinstance(module._parameters.get("weight"), nn.Parameter)


def _obstacle(layer: nn.Module, norm: nn.Module, output: Tensor, uses: "_Uses") -> str | None:
    """Why a norm cannot be folded into the layer that it follows, if it cannot."""
    weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
    assert weight is not None
    axis = 1 if output.dim() > 1 else 0
    batched = output.dim() == (2 if isinstance(layer, nn.Linear) else weight.dim())
    own = [tensor for tensor in (weight, bias) if tensor is not None]
    norm_own = [*norm.parameters(recurse=False)]
    if uses.counts[id(output)] != 1 or id(output) in uses.returned:
        return "other operations see the outputs of its layer, too"
    if any(uses.counts[id(tensor)] != 1 for tensor in [*own, *norm_own]):
        return "its parameters, or those of its layer, are used more than once"
    if uses.makers.get(id(output)) is not type(layer) or weight.dtype != torch.float32:
        return "its layer computes something else than a product with its weight"
    if not batched or output.shape[axis] != len(weight):
        return "its channels are not the rows of its layer's weight"
    return None


class _Uses(TorchDispatchMode):
    """Counts the operations that take each tensor.

    Attributes:
        counts: id of a tensor -> number of operations that took it.
        makers: id of a tensor -> the class of the layer that is running whose weight the operation
            that returned it multiplied by.
        inputs, outputs: module path -> its first argument, and what it returned, at each call. They
            keep the tensors alive, whose ids would be given to others.
        returned: ids of the tensors that the model returned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self.makers: dict[int, type[nn.Module]] = {}
        self.inputs: defaultdict[str, list[Any]] = defaultdict(list)
        self.outputs: defaultdict[str, list[Any]] = defaultdict(list)
        self.returned: set[int] = set()
        self.running: list[nn.Module] = []
        self._transposed: dict[int, Tensor] = {}  # of weights; kept alive, too

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = {id(tensor) for tensor in taken}
        self.counts.update(known)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if id(leaf) not in known:  # it may have the id of a tensor that is gone
                self.counts.pop(id(leaf), None)
                self.makers.pop(id(leaf), None)
        layer = self.running[-1] if self.running else None
        if layer is not None and isinstance(result, Tensor):
            self._note(layer, func.overloadpacket.__name__, args, result)
        return result

    def _note(self, layer: nn.Module, name: str, args: Any, result: Tensor) -> None:
        """Note results of a layer's own product: a convolution, or a product with the transposed
        weight."""
        weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
        if name == "t" and args[0] is weight:
            self._transposed[id(result)] = result
        product = (
            (name == "convolution" and args[1] is weight and args[2] is bias and not args[6])
            or (name == "mm" and id(args[1]) in self._transposed and bias is None)
            or (name == "addmm" and id(args[2]) in self._transposed and args[0] is bias)
        )
        if product:
            self.makers[id(result)] = type(layer)


@contextmanager
def _watched(modules: Mapping[str, nn.Module], uses: _Uses) -> Iterator[None]:
    """Note the calls of modules in `uses`, for the duration of the block."""

    def before(path: str) -> Any:
        def hook(module: nn.Module, arguments: Any) -> None:
            uses.inputs[path].append(arguments[0] if arguments else None)
            if _is_layer(module):
                uses.running.append(module)

        return hook

    def after(path: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            uses.outputs[path].append(output)
            if _is_layer(module):
                uses.running.pop()

        return hook

    handles = []
    for path, module in modules.items():
        handles.append(module.register_forward_pre_hook(before(path)))
        handles.append(module.register_forward_hook(after(path)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
