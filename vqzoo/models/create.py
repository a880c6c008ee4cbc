"""Create timm models, also from the arguments of an untrusted artifact."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from vqzoo.errors import ArtifactError
from vqzoo.models.arguments import factory_arguments, with_layer_classes
from vqzoo.models.random_values import NoRandomValues


def create_model(name: str, arguments: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    """Create a model of timm's registry.

    Args:
        name: a timm name, with or without a tag, or a source ("hf-hub:", "local-dir:").
        arguments: the arguments of its factory as an artifact holds them. Names of layers reach
            factories that take classes alone as classes.
        pretrained: whether to load timm's weights.

    Raises:
        Exception: whatever timm raises.
    """
    native = factory_arguments(arguments)
    try:
        return timm.create_model(name, pretrained=pretrained, **native)
    except TypeError:
        classes = with_layer_classes(native)
        if classes == native:
            raise
        return timm.create_model(name, pretrained=pretrained, **classes)


def create_on_meta(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The same model, without memory for its weights unless its constructor reads them."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"), NoRandomValues():
                return create_model(name, arguments)
        except Exception:  # if meta tensors are not the reason, it is raised again
            return create_model(name, arguments)


@contextmanager
def bounded_construction(modules: int, parameters: int) -> Iterator[None]:
    """Stop a model that this thread creates once it has too many modules or parameters.

    Args:
        modules: how many modules may be registered.
        parameters: how many values all registered parameters may hold.

    Raises:
        ArtifactError: from within the block, at the first module or parameter too many.
    """
    thread, count, values = get_ident(), 0, 0

    def count_module(parent: nn.Module, name: str, module: nn.Module | None) -> None:
        nonlocal count
        if get_ident() == thread:
            count += 1
            if count > modules:
                raise ArtifactError(
                    "the architecture with these arguments has far more modules than the file has "
                    "tensors"
                )

    def count_values(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal values
        if get_ident() == thread and parameter is not None:
            values += parameter.numel()
            if values > parameters:
                raise ArtifactError(
                    "the architecture with these arguments has far more weights than the file"
                )

    hooks = (
        register_module_module_registration_hook(count_module),
        register_module_parameter_registration_hook(count_values),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
