"""Export an artifact's network for another tool."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from vqzoo.artifact.files import write_text
from vqzoo.artifact.folder import check_new_folder, new_folder
from vqzoo.artifact.schema import CONFIG_FILE
from vqzoo.errors import UsageError
from vqzoo.network.build import build_with_codes
from vqzoo.network.export import dense, onnx, openvino, program
from vqzoo.network.export.coreai import write as coreai
from vqzoo.network.export.coreml import package
from vqzoo.network.export.onnx_packed import Inputs
from vqzoo.network.export.packed_weight import decode_in_graph
from vqzoo.network.export.pte import write as pte
from vqzoo.network.export.record import Exported, Tables, Weights, Written
from vqzoo.network.export.web import folder as web
from vqzoo.network.load import verified_artifact
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher, Watcher


@dataclass(frozen=True)
class _Format:
    """A format.

    Attributes:
        file: that holds the network, or a folder, or a pattern of several.
        write: takes the network to write, the same network with dense weights, the folder, and the
            dtype of tables where the format has a choice.
        weights: what the format takes, the default first.
        extra: of vqzoo, that brings the packages that it needs.
        packages: their names.
        tables: the dtypes of palettes' tables, the default first.
    """

    file: str
    write: Callable[..., Written]
    weights: tuple[Weights, ...]
    extra: str = ""
    packages: tuple[str, ...] = ()
    tables: tuple[Tables, ...] = ()


FORMATS = {
    "dense": _Format(
        dense.FILE, lambda model, _, folder: dense.write_dense(model, folder), ("dense",)
    ),
    "onnx": _Format(
        onnx.FILE, onnx.write_onnx, ("codes", "dense", "packed"), "onnx", onnx.PACKAGES
    ),
    "web": _Format(web.FILE, web.write_web, ("codes", "dense"), "onnx", onnx.PACKAGES),
    "pt2": _Format(program.FILE, program.write_program, ("codes", "dense")),
    "pte": _Format(pte.FILE, pte.write_pte, ("codes", "dense"), "executorch", pte.PACKAGES),
    "openvino": _Format(
        openvino.FILES, openvino.write_openvino, ("codes", "dense"), "openvino", openvino.PACKAGES
    ),
    "coreml": _Format(
        package.FOLDER,
        package.write_coreml,
        ("codes", "dense"),
        "coreml",
        package.PACKAGES,
        ("float16", "int8"),
    ),
    "coreai": _Format(
        coreai.FOLDER,
        coreai.write_coreai,
        ("codes", "dense"),
        "coreai",
        coreai.PACKAGES,
        ("float16", "int8"),
    ),
}


def export(
    source: str | Path,
    to: str,
    out: str | Path,
    *,
    weights: Weights | None = None,
    tables: Tables | None = None,
    inputs: Inputs | None = None,
    plugins: Sequence[str | Path] = (),
    watcher: Watcher | None = None,
) -> Exported:
    """Write an artifact's network for another tool, and compare it with the artifact.

    Args:
        source: an artifact's folder or repository.
        to: "dense" writes a folder that `timm.create_model("local-dir:OUT", pretrained=True)` loads
            without vqzoo (after `vqzoo.register_models()` for the architectures that vqzoo adds to
            timm's); for AlexNet, its model.safetensors is torchvision's state dict too. "onnx"
            writes model.onnx, "pt2" a program of torch.export; both take any batch size. "web"
            writes a static page that classifies pictures in the browser, "openvino" OpenVINO's
            model.xml and model.bin. "pte" writes a program of ExecuTorch, "coreml" a Core ML
            package, "coreai" a Core AI asset, each for one image.
        out: a folder that does not exist or is empty.
        weights: "codes" stores packed codes, which the network decodes by its own operations;
            "dense" stores decoded weights. "packed", of "onnx" alone, is "codes", but onnxruntime
            keeps the integers of Linear layers packed in memory, and multiplies by them. The
            default is "codes" where the format has them.
        tables: the dtype of palettes' tables in "coreml" and "coreai", float16 by default. "int8"
            halves them, and rounds them to 1/127 of the largest entry.
        inputs: of layers with packed weights, float32 by default. "int8" rounds them to 8
            bits, a scale for each block, which is faster.
        plugins: the plugin files that the artifact was compressed with.
        watcher: progress callbacks.

    Returns:
        What was written.

    Raises:
        UsageError: `out` is not empty or cannot be made, packages or plugin files are missing, or
            the format has no such weights.
        ArtifactError: the artifact is damaged.
        VqzooError: torch cannot export the network, or what was written computes something else
            than the artifact, by more than 1/1000 of the largest logit.
    """
    chosen = _format(to)
    stored = chosen.weights[0] if weights is None else weights
    if stored not in get_args(Weights):
        raise UsageError(f"weights are codes, packed or dense, not {stored!r:.40}")
    if stored not in chosen.weights:
        raise UsageError(f"the format {to} has {' or '.join(chosen.weights)} weights only")
    if tables is not None and tables not in chosen.tables:
        having = ", ".join(name for name, form in FORMATS.items() if form.tables)
        raise UsageError(
            f"tables are float16 or int8, and for {having} alone; not {tables!r:.40} for {to}"
        )
    if inputs is not None and (inputs not in get_args(Inputs) or stored != "packed"):
        raise UsageError(
            f"inputs are float32 or int8, and for packed weights alone; not {inputs!r:.40} for "
            f"{stored}"
        )
    target = Path(out)
    check_new_folder(target)
    watcher = watcher or SilentWatcher()
    artifact, _ = verified_artifact(source)
    choice: dict[str, str] = {"tables": tables} if tables is not None else {}
    if stored == "packed":
        choice["inputs"] = inputs or "float32"
    with plugin_files(plugins):
        installed = installed_plugins()
        with watcher.phase("decoding the artifact"):
            model, codes = build_with_codes(artifact, installed)
            decoded = copy.deepcopy(model)
            if stored != "dense":
                decode_in_graph(model, codes, installed)
        with watcher.phase(f"exporting to {to}"), new_folder(target) as partial:
            write_text(partial / CONFIG_FILE, json.dumps(artifact.config, indent=2) + "\n")
            written = chosen.write(model, decoded, partial, **choice)
    return Exported(
        format=to,
        weights=stored,
        files=tuple(sorted(path for path in target.rglob("*") if path.is_file())),
        bytes=sum(_size(path) for path in target.glob(chosen.file)),
        artifact_bytes=artifact.header.file_bytes,
        written=written,
    )


def _size(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _format(name: str) -> _Format:
    """The format of a name, whose packages are installed.

    Raises:
        UsageError: there is no such format, or packages are missing.
    """
    chosen = FORMATS.get(name)
    if chosen is None:
        raise UsageError(f"cannot export to {name!r:.40}: choose one of {', '.join(FORMATS)}")
    missing = [package for package in chosen.packages if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"export to {name} needs {', '.join(missing)}: pip install 'vqzoo[{chosen.extra}]'"
        )
    return chosen
