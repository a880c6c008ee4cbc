"""Compile Triton's kernels for CUDA, which takes no CUDA device. Run by `test_triton.py`."""

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vqzoo.numerics.accelerated import triton_decode, triton_products
from vqzoo.numerics.accelerated import triton_kernels as kernels

_POINTS = ["i64", "i64", "i32"]  # strides


ONE = (
    "run",
    "lines",
    "blocks",
    "depth",
    "n",
    "k",
    "m",
    "columns",
    "point_stride",
    "dim_stride",
    "row_stride",
    "book_stride",
)


def build(kernel: Any, signature: list[str], constants: dict[str, Any], capability: int) -> None:
    """Compile a kernel twice: as it is, and with integers 1 as constants, as Triton treats them."""
    _build(kernel, signature, constants, capability)
    ones = {name: 1 for name in ONE if name in kernel.arg_names}
    _build(kernel, signature, constants | ones, capability)


def _build(kernel: Any, signature: list[str], constants: dict[str, Any], capability: int) -> None:
    types = dict(zip(kernel.arg_names, signature, strict=False))
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert len(built.asm["cubin"]) > 0


def nearest(d: int, points: str, codes: str, capability: int) -> None:
    build(
        kernels.nearest_kernel,
        [points, *_POINTS, *["*fp32"] * 4, codes, "*fp32", "i32", "i32"],
        {
            "D": d,
            "COSTS": True,
            "POINTS": kernels.POINTS,
            "CENTROIDS": kernels.CENTROIDS,
        },
        capability,
    )


def add_up(d: int, points: str, codes: str, capability: int, upper: bool) -> None:
    build(
        kernels.add_up_kernel,
        [
            *(points, *_POINTS, "*fp32", "*fp32", "*fp32", codes),
            *("*i64", "*fp32", "*i64", "i32", "i32", "fp32"),
        ],
        {
            "D": d,
            "WEIGHTED": upper,
            "SQUARES": not upper,
            "UPPER": upper,
            "POINTS": kernels.ADDED,
        },
        capability,
    )


def decode_blocks(d: int, books: str, codes: str, capability: int) -> None:
    build(
        triton_decode.decode_blocks_kernel,
        [codes, books, "*fp32", "i32", "i32", "i64", "i32", "i32"],
        {"D": d, "STAGES": 2, "ROWS": triton_decode.ROWS, "COLUMNS": triton_decode.COLUMNS},
        capability,
    )


def multiply(width: int, inputs: int, books: str, capability: int) -> None:
    codes = "*i16" if width == 16 else "*u8"
    if width <= 8:
        build(
            triton_products.multiply_scalars_kernel,
            [codes, "*fp32", "*fp32", "*fp32", "i32", "i32", "i32", "fp32"],
            {
                "WIDTH": width,
                "GRID": width == 4,
                "INPUTS": inputs,
                "ROWS": 64 // inputs,
                "BYTES": triton_products.BYTES,
            },
            capability,
        )
    build(
        triton_products.multiply_blocks_kernel,
        [codes, books, "*fp32", "*fp32", "i32", "i32", "i32", "i32", "i32", "i32"],
        {
            "D": 4,
            "STAGES": 2,
            "WIDTH": width,
            "INPUTS": inputs,
            "ROWS": triton_products.ROWS,
            "LINES": triton_products.LINES,
        },
        capability,
    )


if __name__ == "__main__":
    for d, points, codes, capability, widths in (
        (4, "*fp32", "*u8", 80, (4, 16)),
        (9, "*bf16", "*i32", 90, (8, 16)),
    ):
        nearest(d, points, codes, capability)
        add_up(d, points, codes, capability, upper=d == 4)
        decode_blocks(d, points, codes, capability)
        for width in widths:
            multiply(width, {4: 1, 8: 8, 16: 2}[width], points, capability)
