"""A traced network as a program of Core ML, and its weights as operations that decode them."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqzoo.artifact.files import write_text
from vqzoo.errors import VqzooError, one_line
from vqzoo.network.export.coreml.blobs import inline_small_arrays
from vqzoo.network.export.coreml.palette import Palette
from vqzoo.network.export.coreml.text import shorten

# They would change the weights, or give two of them one name.
_LEFT_OUT = {
    "common::fuse_conv_batchnorm",
    "common::fuse_conv_scale",
    "common::fuse_elementwise_to_batchnorm",
    "common::const_deduplication",
}
_LOGGER = "coremltools"
_TEXT = "com.apple.CoreML/model.mlmodel"
_WEIGHTS = "com.apple.CoreML/weights/weight.bin"


def program_of(model: nn.Module, images: Tensor) -> Any:
    """Trace a network, and convert it to a program in float16 for iOS 18.

    Args:
        model: the network, in eval mode.
        images: an example, whose shape the program takes.

    Raises:
        VqzooError: torch cannot trace the network, or coremltools cannot convert it.
    """
    with _quiet():
        import coremltools as ct

        passes = ct.PassPipeline.DEFAULT
        passes.remove_passes(_LEFT_OUT)
        try:
            with torch.no_grad():
                # By way of torch.export, where shapes are constants: coremltools cannot convert
                # what computes paddings from them.
                static = torch.export.export(model, (images,)).module()
                traced = torch.jit.trace(static, images)
            return ct.convert(
                traced,
                inputs=[ct.TensorType(name="images", shape=images.shape, dtype=np.float32)],
                outputs=[ct.TensorType(name="logits", dtype=np.float32)],
                convert_to="milinternal",
                minimum_deployment_target=ct.target.iOS18,
                pass_pipeline=passes,
            )
        except Exception as error:
            raise VqzooError(
                f"coremltools cannot convert this network: {one_line(error)}"
            ) from error


def put_palettes(program: Any, palettes: Mapping[str, Palette]) -> set[str]:
    """Replace constants of a program by the palettes that decode to them, in place.

    Args:
        program: of `program_of`.
        palettes: by key in the network's state dict.

    Returns:
        The keys whose weight the program has no longer as the network has it; they are left as
        they are.
    """
    function = program.functions["main"]
    constants = {
        operation.outputs[0].name: operation
        for operation in function.operations
        if operation.op_type == "const"
    }
    missing = set()
    for key, palette in palettes.items():
        operation = constants.get(f"{key}_to_fp16")
        d = palette.table.shape[-1]
        sizes = [n * d if a == palette.axis else n for a, n in enumerate(palette.codes.shape)]
        if operation is None or list(operation.outputs[0].shape) != sizes:
            missing.add(key)
            continue
        old = operation.outputs[0]
        with function, _scope(key):
            new = _decoded(palette, key, operation)
            function.replace_uses_of_var_after_op(operation, old, new)
            function.remove_ops([operation])
    return missing


def save_program(program: Any, path: Path) -> None:
    """Write a program as an .mlpackage."""
    with _quiet():
        import coremltools as ct

        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT32,  # it has the precision that it should have
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        # For `vqzoo import`: scales times tables are the artifact's weights in float32.
        model.user_defined_metadata["vqzoo.scales"] = "float32"
        model.save(str(path))
    _compact(path)
    for file in path.rglob("*.*"):
        file.chmod(0o644)  # coremltools keeps the program from other users


def _compact(path: Path) -> None:
    """Write a package again, in fewer bytes, and the same for the same network."""
    from coremltools.proto import Model_pb2

    text, weights = path / "Data" / _TEXT, path / "Data" / _WEIGHTS
    model = Model_pb2.Model.FromString(text.read_bytes())
    weights.write_bytes(inline_small_arrays(model, weights.read_bytes()))
    shorten(model)
    text.write_bytes(model.SerializeToString(deterministic=True))
    manifest = json.loads((path / "Manifest.json").read_text(encoding="utf-8"))
    entries = manifest["itemInfoEntries"]
    names = {key: str(uuid5(NAMESPACE_URL, entry["path"])) for key, entry in entries.items()}
    manifest["itemInfoEntries"] = {names[key]: entry for key, entry in entries.items()}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    write_text(path / "Manifest.json", json.dumps(manifest, indent=4, sort_keys=True) + "\n")


def saved_constants(path: Path) -> dict[str, NDArray[np.float32]]:
    """What coremltools decodes from the constants of an .mlpackage that are arrays, by name."""
    with _quiet():
        import coremltools as ct
        from coremltools.converters.mil.frontend.milproto.load import load

        model = ct.models.MLModel(str(path), skip_model_load=True)
        spec = model.get_spec()
        program = load(spec, spec.specificationVersion, file_weights_dir=model.weights_dir)
    decoded: dict[str, NDArray[Any]] = {}
    constants = {}
    for operation in program.functions["main"].operations:
        output = operation.outputs[0]
        if operation.op_type == "const":
            values = output.val
        elif operation.op_type.startswith("constexpr_"):
            values = _decompressed(operation, decoded)
            decoded[output.name] = values
        else:
            continue
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            constants[output.name] = values.astype(np.float32)
    return constants


def _decompressed(operation: Any, decoded: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What coremltools decodes from an operation.

    Its own `materialized_val_inference` has no tables that are decoded themselves.
    """

    def value(given: Any) -> Any:
        return None if given is None else decoded.get(given.name, given.val)

    if operation.op_type == "constexpr_lut_to_dense":
        places = (operation.indices, operation.lut, operation.vector_axis)
    elif operation.op_type == "constexpr_blockwise_shift_scale":
        places = (operation.data, operation.scale, operation.offset)
    else:
        materialized: NDArray[Any] = operation.materialized_val_inference()
        return materialized
    decompress: Callable[..., NDArray[Any]] = operation.decompress
    return decompress(*(value(place) for place in places))


def saved_name(key: str) -> str:
    """The name of a weight in an .mlpackage."""
    name = "".join(letter if letter.isalnum() else "_" for letter in f"{key}_to_fp16")
    return name if name[0].isalpha() or name[0] == "_" else f"_{name}"


def _decoded(palette: Palette, key: str, before: Any) -> Any:
    """The operations that decode a palette, before another operation."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    name = saved_name(key)
    integers = palette.integers
    if integers is not None:
        data = integers.astype(types.np_int4_dtype) if palette.bits == 4 else integers
        return mb.constexpr_blockwise_shift_scale(
            data=data, scale=palette.scale, name=name, before_op=before
        )
    width = np.dtype(np.uint8) if palette.bits == 8 else _sub_byte(types, palette.bits)
    vectors = {} if palette.axis is None else {"vector_axis": palette.axis}
    table: Any = palette.table
    if palette.table_scale is not None:
        table = mb.constexpr_blockwise_shift_scale(
            data=table, scale=palette.table_scale, name=f"{name}_table", before_op=before
        )
    looked_up = mb.constexpr_lut_to_dense(
        indices=palette.codes.astype(width),
        lut=table,
        name=name if palette.scale is None else f"{name}_palette",
        before_op=before,
        **vectors,
    )
    if palette.scale is None:
        return looked_up
    return mb.constexpr_blockwise_shift_scale(
        data=looked_up, scale=palette.scale, name=name, before_op=before
    )


def _scope(key: str) -> Any:
    """Where new operations come from, which coremltools asks of each in a traced network."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

    sources = (ScopeSource.TORCHSCRIPT_MODULE_TYPE, ScopeSource.TORCHSCRIPT_MODULE_NAME)
    return mb.scope(*(ScopeInfo(source=source, data=[key]) for source in sources))


def _sub_byte(types: Any, bits: int) -> Any:
    return getattr(types, f"np_uint{bits}_dtype")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without coremltools' and torch's remarks on versions, and progress of their own."""
    logger = logging.getLogger(_LOGGER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
