"""The proof that an artifact holds the network that was given: both are run on the same images."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.artifact.schema import Proof
from vqzoo.data.model_input import input_size
from vqzoo.errors import VqzooError, one_line

_SEED = 0
_SCALES = (1.0, 8.0)  # of one image each: the larger reaches where activations saturate
_TOLERANCE = 1e-4  # of the largest output
_PROBE = 20.0  # activations are compared from minus this to this


def prove(network: nn.Module, rebuilt: nn.Module) -> Proof:
    """Run the network that an artifact was made of beside the one that it rebuilds.

    Args:
        network: the network that was given, with the decoded weights in it, in eval mode.
        rebuilt: the network that timm created from the artifact.

    Raises:
        VqzooError: they differ, or cannot be run; names the first module that differs.
    """
    network = _as_loaded(network)
    different = _first_other_activation(network, rebuilt)
    if different is not None:
        raise VqzooError(_refusal(network, rebuilt, different))
    images = _images(rebuilt)
    try:
        outputs = _outputs(network, images)
    except Exception as error:
        raise VqzooError(
            f"the network cannot be run on images of {tuple(images.shape[1:])}, so the artifact "
            f"cannot be checked against it: {one_line(error)}"
        ) from error
    try:
        difference = _largest_difference(outputs, _outputs(rebuilt, images))
    except Exception as error:
        raise VqzooError(
            f"the network that the artifact rebuilds cannot be run: {one_line(error)}"
        ) from error
    if not difference <= _TOLERANCE:
        first = _first_other_output(network, rebuilt, images)
        raise VqzooError(_refusal(network, rebuilt, first))
    return Proof(images=tuple(images.shape), difference=difference)


def _refusal(network: nn.Module, rebuilt: nn.Module, path: str) -> str:
    text = "the artifact would rebuild another network"
    if path:
        text += f", which differs first at {path}: {_name(network, path)} became "
        text += _name(rebuilt, path)
    return (
        f"{text}; nothing was written. timm's factory needs an argument that says so, or save the "
        "weights alone with vqzoo.save_weights"
    )


def _name(model: nn.Module, path: str) -> str:
    try:
        return " ".join(repr(model.get_submodule(path)).split())[:120]
    except AttributeError:
        return "nothing"


def _as_loaded(network: nn.Module) -> nn.Module:
    """The network on the CPU and in float32, as artifacts are loaded; a copy where it is not."""
    tensors = network.state_dict().values()
    halves = (torch.float16, torch.bfloat16)
    if any(tensor.dtype in halves or tensor.device.type != "cpu" for tensor in tensors):
        return deepcopy(network).float().cpu()
    return network


def _images(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    images = torch.randn(len(_SCALES), *input_size(model), generator=generator)
    return images * torch.tensor(_SCALES).view(-1, 1, 1, 1)


def _outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The tensors that a network returns for the images, in float32."""
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return [tensor.float() for tensor in _tensors(model(images))]


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)


def _largest_difference(outputs: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference as a share of the largest value; infinite for other shapes."""
    if [x.shape for x in outputs] != [x.shape for x in others]:
        return float("inf")
    largest, difference = 0.0, 0.0
    for x, other in zip(outputs, others, strict=True):
        if not x.numel() or torch.equal(x, other):
            continue
        same = (x == other) | (x.isnan() & other.isnan())
        gap = (x - other).abs().masked_fill(same, 0.0).max()
        difference = max(difference, float(gap) if gap.isfinite() else float("inf"))
        largest = max(largest, float(x.nan_to_num(0.0, 0.0, 0.0).abs().max()))
    return difference / largest if difference else 0.0


def _first_other_activation(network: nn.Module, rebuilt: nn.Module) -> str | None:
    """The path of the first module without tensors that another class has replaced, and that
    computes something else: images might not reach the values where they differ."""
    probe = torch.linspace(-_PROBE, _PROBE, 1024).view(1, 16, 8, 8)
    counterparts = dict(rebuilt.named_modules())
    for path, module in network.named_modules():
        other = counterparts.get(path)
        if other is None or type(module) is type(other) or not _is_function(module, other):
            continue
        values = _probed(module, probe), _probed(other, probe)
        if None not in values and _largest_difference([values[0]], [values[1]]) > 1e-6:  # type: ignore[list-item]
            return path
    return None


def _is_function(*modules: nn.Module) -> bool:
    """Whether modules have neither children nor tensors."""
    return not any(module.state_dict() or list(module.children()) for module in modules)


def _probed(module: nn.Module, probe: Tensor) -> Tensor | None:
    """What a module makes of the probe; None where it is not a function of one tensor."""
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            output = module(probe.clone())
    except Exception:
        return None
    return output if isinstance(output, Tensor) and output.shape == probe.shape else None


def _first_other_output(network: nn.Module, rebuilt: nn.Module, images: Tensor) -> str:
    """The path of the module that first, in the order in which modules end, gives another
    output; "" where none does."""
    reference = _recorded(network, images)
    for path, values in _recorded(rebuilt, images).items():
        expected = reference.get(path)
        if expected is not None and not _largest_difference(expected, values) <= _TOLERANCE:
            return path
    return next((path for path in reference if not _has(rebuilt, path)), "")


def _recorded(model: nn.Module, images: Tensor) -> dict[str, list[Tensor]]:
    """Each module's first output by its path, in the order in which modules end."""
    outputs: dict[str, list[Tensor]] = {}

    def record(path: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            outputs.setdefault(path, [tensor.detach().clone() for tensor in _tensors(output)])

        return hook

    handles = [m.register_forward_hook(record(path)) for path, m in model.named_modules() if path]
    try:
        _outputs(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _has(model: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in model.named_modules())
