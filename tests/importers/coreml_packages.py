"""Core ML packages of a network's weights, and what coremltools decodes from them."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import Function, Program, types
from numpy.typing import NDArray

from tests.importers.layouts import network_state

Array = NDArray[Any]
Decoder = Callable[[np.random.Generator, Array, str], Any]


def write(
    path: Path, decoder: Decoder, target: Any, *, named: bool, half: bool = False
) -> dict[str, Array]:
    """Write a package with a layer for each of the network's, from inputs of their own.

    Its convolutions have the biases of batch norms that were folded into them.

    Args:
        path: the .mlpackage.
        decoder: makes the operation that computes a weight, from a random weight and a name.
        target: the oldest system that runs it.
        named: whether constants have the names of the network's.
        half: whether everything is computed in float16, weights included.

    Returns:
        Key -> weight, as coremltools decodes it from the package.
    """
    random = np.random.default_rng(4)
    state = {key: tensor.numpy() for key, tensor in network_state().items()}
    keys = [key for key, tensor in state.items() if tensor.ndim > 1]
    dtype, kind = (np.float16, types.fp16) if half else (np.float32, types.fp32)
    inputs = {
        f"x{place}": mb.placeholder(
            (1, state[key].shape[1], 3, 3)[: 4 if state[key].ndim == 4 else 2], dtype=kind
        )
        for place, key in enumerate(keys)
    }
    program = Program()
    with Function(inputs, opset_version=target) as function:
        outputs = []
        for place, key in enumerate(keys):
            name = key.replace(".", "_") if named else f"const_{place}"
            weight = decoder(random, state[key], name)
            x = function.inputs[f"x{place}"]
            if state[key].ndim == 2:
                bias = mb.const(
                    val=state["fc.bias"].astype(dtype), name="fc_bias" if named else "const_b"
                )
                outputs.append(mb.linear(x=x, weight=weight, bias=bias))
            else:
                bias = random.normal(size=len(state[key])).astype(dtype)
                outputs.append(mb.conv(x=x, weight=weight, bias=bias, pad_type="same"))
        function.set_outputs(outputs)
    program.add_function("main", function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.convert(
            program,
            minimum_deployment_target=target,
            pass_pipeline=ct.PassPipeline.EMPTY,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
    model.license = "cc-by-4.0"
    model.save(str(path))
    return dict(zip(keys, decoded(path), strict=True))


def decoded(path: Path) -> list[Array]:
    """What coremltools decodes the weights of a package to, in the order of its layers."""
    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, spec.specificationVersion, file_weights_dir=model.weights_dir)
    layers = [o for o in program.functions["main"].operations if o.op_type in ("conv", "linear")]
    return [_materialized(layer.weight.op) for layer in layers]


def _materialized(operation: Any) -> Array:
    """A constant; coremltools looks up entries only in tables that stand in the program."""
    if operation.op_type == "constexpr_lut_to_dense" and operation.lut.val is None:
        table = operation.lut.op.materialized_val_inference()
        axis = None if operation.vector_axis is None else operation.vector_axis.val
        return operation.decompress(operation.indices.val, table, axis)
    return operation.materialized_val_inference()


def table_of_64(random: np.random.Generator, weight: Array, name: str) -> Any:
    """Codes of six bits, packed, for a table of 64 values, as before iOS 18."""
    codes = random.integers(64, size=weight.size).astype(np.uint8)
    bits = np.unpackbits(codes[:, None], axis=1, bitorder="little", count=6)
    return mb.constexpr_lut_to_dense(
        indices=np.packbits(bits, bitorder="little"),
        lut=random.normal(size=64).astype(np.float32),
        shape=np.array(weight.shape, dtype=np.uint32),
        name=name + "_palettized",
    )


def vectors(random: np.random.Generator, weight: Array, name: str) -> Any:
    """Codes of four bits for vectors of four that lie across the outputs."""
    shape = (len(weight) // 4, *weight.shape[1:])
    return _table(random, shape, 16, (1,) * weight.ndim, 4, name, vector_axis=0)


def tables_of_groups(random: np.random.Generator, weight: Array, name: str) -> Any:
    """A table of 16 values for each eight outputs."""
    groups = (len(weight) // 8, *[1] * (weight.ndim - 1))
    return _table(random, weight.shape, 16, groups, 1, name)


def tables_of_inputs(random: np.random.Generator, weight: Array, name: str) -> Any:
    """A table of 16 values for each input."""
    groups = (1, weight.shape[1], *[1] * (weight.ndim - 2))
    return _table(random, weight.shape, 16, groups, 1, name)


def scaled_tables(
    random: np.random.Generator, weight: Array, name: str, dtype: type = np.float32
) -> Any:
    """A table of 16 bytes, and for each output a scale of its own."""
    outputs, rank = len(weight), weight.ndim
    table = mb.constexpr_blockwise_shift_scale(
        data=random.integers(-128, 128, (outputs, *[1] * (rank - 1), 16, 1)).astype(np.int8),
        scale=random.uniform(0.5, 2, (outputs, *[1] * (rank + 1))).astype(dtype),
        name=name + "_table",
    )
    codes = random.integers(16, size=weight.shape).astype(types.np_uint4_dtype)
    return mb.constexpr_lut_to_dense(indices=codes, lut=table, name=name + "_palettized")


def half_scaled_tables(random: np.random.Generator, weight: Array, name: str) -> Any:
    """The same with scales in float16."""
    return scaled_tables(random, weight, name, np.float16)


def _table(
    random: np.random.Generator,
    shape: tuple[int, ...],
    entries: int,
    groups: tuple[int, ...],
    width: int,
    name: str,
    **options: Any,
) -> Any:
    codes = random.integers(entries, size=shape).astype(types.np_uint4_dtype)
    table = random.normal(size=(*groups, entries, width)).astype(np.float32)
    name += "_palettized"
    return mb.constexpr_lut_to_dense(indices=codes, lut=table, name=name, **options)


def bytes_of_rows(
    random: np.random.Generator, weight: Array, name: str, dtype: type = np.float32
) -> Any:
    """uint8 with a scale and a zero point for each row, as before iOS 18."""
    return mb.constexpr_affine_dequantize(
        quantized_data=random.integers(256, size=weight.shape).astype(np.uint8),
        zero_point=random.integers(256, size=len(weight)).astype(np.uint8),
        scale=random.uniform(0.5, 2, size=len(weight)).astype(dtype),
        axis=0,
        name=name + "_quantized",
    )


def nibbles_of_blocks(
    random: np.random.Generator, weight: Array, name: str, dtype: type = np.float32
) -> Any:
    """int4 with a scale for half of the inputs of an output."""
    halves = 2 if weight.shape[1] % 2 == 0 else 1
    scale = random.uniform(0.5, 2, size=(len(weight), halves, *[1] * (weight.ndim - 2)))
    return mb.constexpr_blockwise_shift_scale(
        data=random.integers(-8, 8, size=weight.shape).astype(types.np_int4_dtype),
        scale=scale.astype(dtype),
        name=name + "_quantized",
    )


def bytes_with_offsets(random: np.random.Generator, weight: Array, name: str) -> Any:
    """uint8 with an offset for each row, and scales in float16."""
    shape = (len(weight), *[1] * (weight.ndim - 1))
    return mb.constexpr_blockwise_shift_scale(
        data=random.integers(256, size=weight.shape).astype(np.uint8),
        scale=random.uniform(0.5, 2, size=shape).astype(np.float16),
        offset=random.integers(256, size=shape).astype(np.uint8),
        name=name + "_quantized",
    )


def bytes_with_far_offsets(random: np.random.Generator, weight: Array, name: str) -> Any:
    """uint8 with scales and offsets in float16, some of which are beyond 2048: differences that are
    odd are rounded."""
    shape = (len(weight), *[1] * (weight.ndim - 1))
    return mb.constexpr_blockwise_shift_scale(
        data=random.integers(256, size=weight.shape).astype(np.uint8),
        scale=random.uniform(0.5, 2, size=shape).astype(np.float16),
        offset=(random.integers(1, 3, size=shape) * 2000).astype(np.float16),
        name=name + "_quantized",
    )


def half_bytes_of_rows(random: np.random.Generator, weight: Array, name: str) -> Any:
    """`bytes_of_rows` with scales in float16, as coremltools has by default."""
    return bytes_of_rows(random, weight, name, np.float16)


def half_nibbles_of_blocks(random: np.random.Generator, weight: Array, name: str) -> Any:
    """`nibbles_of_blocks` with scales in float16."""
    return nibbles_of_blocks(random, weight, name, np.float16)


def _mask(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, int]:
    mask = (random.random(shape) < 0.3).astype(types.np_uint1_dtype)
    return mask, int(np.count_nonzero(mask))


def pruned(random: np.random.Generator, weight: Array, name: str) -> Any:
    """Three values of ten in float16, the others zero."""
    mask, count = _mask(random, weight.shape)
    return mb.constexpr_sparse_to_dense(
        nonzero_data=random.normal(size=count).astype(np.float16), mask=mask, name=name + "_sparse"
    )


def pruned_flat(random: np.random.Generator, weight: Array, name: str) -> Any:
    """The same as before iOS 18."""
    mask, count = _mask(random, (weight.size,))
    return mb.constexpr_sparse_to_dense(
        nonzero_data=random.normal(size=count).astype(np.float16),
        mask=np.packbits(mask.astype(np.uint8), bitorder="little"),
        shape=np.array(weight.shape, dtype=np.uint32),
        name=name + "_sparse",
    )


def pruned_bytes(random: np.random.Generator, weight: Array, name: str) -> Any:
    """Three bytes of ten, with a scale and an offset for each row."""
    mask, count = _mask(random, weight.shape)
    shape = (len(weight), *[1] * (weight.ndim - 1))
    mask, values = mb.constexpr_sparse_blockwise_shift_scale(
        data_mask=mask,
        nonzero_data=random.integers(-128, 128, size=count).astype(np.int8),
        scale=random.uniform(0.5, 2, size=shape).astype(np.float16),
        offset=random.integers(-10, 10, size=shape).astype(np.int8),
        name=name + "_bytes",
    )
    return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask, name=name + "_sparse")


def pruned_palettes(random: np.random.Generator, weight: Array, name: str) -> Any:
    """Three codes of ten, for a table of 16 values."""
    return _pruned_table(random, weight, name, 1)


def pruned_vectors(random: np.random.Generator, weight: Array, name: str) -> Any:
    """The same for vectors of four that lie across the outputs."""
    return _pruned_table(random, weight, name, 4)


def _pruned_table(random: np.random.Generator, weight: Array, name: str, width: int) -> Any:
    mask, count = _mask(random, (len(weight) // width, *weight.shape[1:]))
    mask, values = mb.constexpr_lut_to_sparse(
        indices_mask=mask,
        indices_nonzero_data=random.integers(16, size=count).astype(types.np_uint4_dtype),
        lut=random.normal(size=(*[1] * weight.ndim, 16, width)).astype(np.float16),
        name=name + "_table",
        **({"vector_axis": 0} if width > 1 else {}),
    )
    return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask, name=name + "_sparse")
