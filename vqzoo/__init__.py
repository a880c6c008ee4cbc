"""vqzoo: vector quantization for PyTorch vision models.

    import vqzoo

    small = vqzoo.compress(model, "pq", layers="dense", k=256, d=8)
    small.save("my-artifact")
    model = vqzoo.load("my-artifact")
    vqzoo.push("my-artifact", "org/name")
    model = vqzoo.load("org/name")

The names below are imported on first use, so that the command line starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqzoo.distillation.distill import distill
    from vqzoo.evaluation.accuracy import evaluate
    from vqzoo.finetuning.finetune import finetune
    from vqzoo.hub.repository import pull, push
    from vqzoo.models.registration import register_models
    from vqzoo.network.compress import compress
    from vqzoo.network.compressed_model import CompressedModel
    from vqzoo.network.load import load
    from vqzoo.network.load_into import load_into
    from vqzoo.network.save_weights import save_weights
    from vqzoo.plugin.hookspecs import hookimpl

__all__ = [
    "CompressedModel",
    "compress",
    "distill",
    "evaluate",
    "finetune",
    "hookimpl",
    "load",
    "load_into",
    "pull",
    "push",
    "register_models",
    "save_weights",
]

_HOMES = {
    "CompressedModel": "vqzoo.network.compressed_model",
    "compress": "vqzoo.network.compress",
    "distill": "vqzoo.distillation.distill",
    "evaluate": "vqzoo.evaluation.accuracy",
    "finetune": "vqzoo.finetuning.finetune",
    "hookimpl": "vqzoo.plugin.hookspecs",
    "load": "vqzoo.network.load",
    "load_into": "vqzoo.network.load_into",
    "pull": "vqzoo.hub.repository",
    "push": "vqzoo.hub.repository",
    "register_models": "vqzoo.models.registration",
    "save_weights": "vqzoo.network.save_weights",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vqzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
