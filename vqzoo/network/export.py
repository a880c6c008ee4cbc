"""Export artifacts for other tools: dense weights for timm or torchvision, or ONNX."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from vqzoo.artifact.files import write_text
from vqzoo.artifact.folder import check_new_folder, new_folder
from vqzoo.artifact.schema import CONFIG_FILE, DENSE_FILE
from vqzoo.artifact.writer import untouched_tensors, write_tensors
from vqzoo.data.model_input import input_size
from vqzoo.errors import UsageError, VqzooError, one_line
from vqzoo.network.build import build_model
from vqzoo.network.load import verified_artifact
from vqzoo.plugin.manager import installed_plugins

ONNX_FILE = "model.onnx"
Format = Literal["dense", "onnx"]

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Logits of onnxruntime's kernels and torch's, relative to the largest of them.
_ONNX_TOLERANCE = 1e-3


def export(source: str | Path, to: Format, out: str | Path) -> list[Path]:
    """Write an artifact's network for another tool, with decoded weights.

    Args:
        source: an artifact's folder or repository.
        to: "dense" writes a folder that `timm.create_model("local-dir:OUT", pretrained=True)` loads
            without vqzoo (after `vqzoo.register_models()` for the architectures that vqzoo adds to
            timm's); for AlexNet, its model.safetensors is torchvision's state dict too. "onnx"
            writes model.onnx for any batch size and compares it with torch in onnxruntime.
        out: a folder that does not exist or is empty.

    Returns:
        The files that were written.

    Raises:
        UsageError: `out` is not empty, or packages are missing.
        ArtifactError: the artifact is damaged.
        VqzooError: torch cannot export the network, or onnxruntime's logits differ from torch's.
    """
    writers: dict[str, Callable[[nn.Module, Path], None]] = {
        "dense": _write_dense,
        "onnx": _write_onnx,
    }
    if to not in writers:
        raise UsageError(f"cannot export to {to!r:.40}: choose one of {', '.join(writers)}")
    missing = [name for name in _ONNX_PACKAGES if to == "onnx" and find_spec(name) is None]
    if missing:
        raise UsageError(f"export to onnx needs {', '.join(missing)}: pip install 'vqzoo[onnx]'")
    target = Path(out)
    check_new_folder(target)
    artifact, _ = verified_artifact(source)
    model = build_model(artifact, installed_plugins())
    with new_folder(target) as partial:
        write_text(partial / CONFIG_FILE, json.dumps(artifact.config, indent=2) + "\n")
        writers[to](model, partial)
    return sorted(target.iterdir())


def _write_dense(model: nn.Module, folder: Path) -> None:
    tensors, aliases = untouched_tensors(model, set())
    tensors |= {
        alias: tensors[key].clone() for alias, key in aliases.items()
    }  # timm loads every key
    write_tensors(folder / DENSE_FILE, tensors, {"format": "pt"})


def _write_onnx(model: nn.Module, folder: Path) -> None:
    size = input_size(model)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *size, generator=generator)
    try:
        torch.onnx.export(
            model,
            (images,),
            str(folder / ONNX_FILE),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except Exception as error:
        raise VqzooError(f"torch cannot export this network to ONNX: {one_line(error)}") from error
    _compare(model, folder / ONNX_FILE, torch.randn(3, *size, generator=generator))


def _compare(model: nn.Module, path: Path, images: torch.Tensor) -> None:
    """Compare an ONNX file's logits on some images with torch's.

    Raises:
        VqzooError: they differ by more than 1/1000 of the largest.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images)
    error = (torch.from_numpy(logits) - expected).abs().max() / expected.abs().max()
    if not error <= _ONNX_TOLERANCE:
        raise VqzooError(f"onnxruntime's logits differ from torch's by {error:.1e} of the largest")
