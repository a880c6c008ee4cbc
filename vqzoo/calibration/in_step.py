"""Run a network on several batches in step: all of them pass a layer before any continues."""

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class OutOfStep(Exception):
    """A batch reaches the layers in another order than the one given, or not all of them."""


class _Stopped(BaseException):
    """Ends the forward pass of a batch that is no longer needed."""


class Call(NamedTuple):
    """A layer's call in the forward pass of a batch: its positional arguments, and its output."""

    arguments: tuple[Any, ...]
    output: Tensor


@dataclass
class _ForwardPass:
    """One batch's forward pass, on a thread of its own that runs only while the others wait.

    Attributes:
        images: the batch.
        passed: layers that it has been through.
        resume: tells the thread to go on (True) or to stop (False).
        arrived: receives a layer and its call, None and the network's answer, or None and an
            exception.
        thread: runs the pass.
    """

    images: Tensor
    passed: set[str] = field(default_factory=set)
    resume: SimpleQueue[bool] = field(default_factory=SimpleQueue)
    arrived: SimpleQueue[tuple[str | None, Any]] = field(default_factory=SimpleQueue)
    thread: threading.Thread | None = None


def run_in_step(
    network: nn.Module,
    layers: Sequence[str],
    batches: Sequence[Tensor],
    at_layer: Callable[[str, list[Call]], None],
) -> list[Any]:
    """`in_step` to the end.

    Args:
        network: in eval mode.
        layers: the layers to stop at, in the order in which a forward pass first calls them.
        batches: images, on the network's device.
        at_layer: takes a layer and its call for each batch, the first one of a pass; it may
            change the layer, whose outputs are then computed again.

    Returns:
        The network's answer for each batch.

    Raises:
        OutOfStep: a batch reaches the layers in another order, or not all of them; `at_layer` may
            have been called for some layers by then.
    """
    steps = in_step(network, layers, batches)
    try:
        while True:
            name, calls = next(steps)
            at_layer(name, calls)
    except StopIteration as end:
        answers: list[Any] = end.value
        return answers
    finally:
        steps.close()


def in_step(
    network: nn.Module, layers: Sequence[str], batches: Sequence[Tensor]
) -> Generator[tuple[str, list[Call]], None, list[Any]]:
    """One forward pass of all batches together, which stops at layers.

    The activations of every batch are held at once. A generator that is left early has to be
    closed: threads wait for it.

    Args:
        network: in eval mode.
        layers: the layers to stop at, in the order in which a forward pass first calls them.
        batches: images, on the network's device.

    Yields:
        Each layer and its first call in each batch. Until the next one is asked for, weights may
        change; those of this layer count, as its outputs are computed again.

    Returns:
        The network's answer for each batch.

    Raises:
        OutOfStep: a batch reaches the layers in another order, or not all of them.
    """
    passes = [_ForwardPass(images) for images in batches]
    by_thread: dict[int, _ForwardPass] = {}

    def stop_here(
        name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Any:
        one = by_thread.get(threading.get_ident())
        if one is None or name in one.passed:  # whoever is asked at a stop may run the network, too
            return None
        one.passed.add(name)
        one.arrived.put((name, Call(args, output)))
        if not one.resume.get():
            raise _Stopped
        return layer.forward(*args, **kwargs)

    def run(one: _ForwardPass) -> None:
        by_thread[threading.get_ident()] = one
        try:
            if one.resume.get():
                with torch.no_grad():
                    one.arrived.put((None, network(one.images)))
        except _Stopped:
            pass
        except BaseException as error:
            one.arrived.put((None, error))

    def advance(one: _ForwardPass, layer: str | None) -> Any:
        """Let a batch go on to a layer, or to the end for None; its call there, or the answer."""
        one.resume.put(True)
        name, what = one.arrived.get()
        if isinstance(what, BaseException):
            raise what
        if name != layer:
            raise OutOfStep(f"{name} is reached where {layer} was expected")
        return what

    hooks = [
        network.get_submodule(name).register_forward_hook(
            partial(stop_here, name), with_kwargs=True
        )
        for name in layers
    ]
    try:
        for one in passes:
            one.thread = threading.Thread(target=run, args=(one,), name="vqzoo")
            one.thread.start()
        for name in layers:
            yield name, [advance(one, name) for one in passes]
        return [advance(one, None) for one in passes]
    finally:
        for one in passes:
            one.resume.put(False)
            if one.thread is not None:
                one.thread.join()
        for hook in hooks:
            hook.remove()
