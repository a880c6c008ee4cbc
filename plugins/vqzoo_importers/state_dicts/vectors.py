"""Codes of sub-vectors as the method pq stores them."""

import torch
from torch import Tensor

from vqzoo.errors import VqzooError
from vqzoo.plugin import Code, Floats, Indices, MethodCode
from vqzoo.plugin.limits import MAX_CARDINALITY

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def product_code(codes: Tensor, codebook: Tensor, shape: tuple[int, int], where: str) -> MethodCode:
    """A pq code with one codebook for the layer: W[i, d·b:d·(b+1)] = codebook[codes[b, i]].

    Args:
        codes: integers (blocks, m).
        codebook: (k, d), float16, bfloat16 or float32.
        shape: (m, n) of the matrix.
        where: the file and the layer, for error messages.

    Raises:
        VqzooError: shapes or dtypes do not fit, or a code is no row of the codebook.
    """
    m, n = shape
    if codebook.dim() != 2 or codebook.dtype not in _FLOATS:
        raise VqzooError(f"{where}: the codebook is not a matrix of floats, {_kind(codebook)}")
    k, d = codebook.shape
    if not (1 <= k <= MAX_CARDINALITY and 1 <= d <= n and n % d == 0):
        raise VqzooError(f"{where}: a codebook of {k} × {d} does not fit a matrix of {m} × {n}")
    if tuple(codes.shape) != (n // d, m) or codes.dtype not in _INTEGERS:
        raise VqzooError(
            f"{where}: its codes are no integers for {n // d} blocks of {m} rows, {_kind(codes)}"
        )
    check_range(codes, k, where)
    return MethodCode(
        "pq",
        Code(
            shape,
            {"codes": Indices(codes, k), "codebook": Floats(codebook.detach()[None])},
            {"d": d, "axis": "columns"},
        ),
    )


def check_range(codes: Tensor, size: int, where: str) -> None:
    """Refuse codes that are no index into a codebook of this size.

    Raises:
        VqzooError: gives the range of the codes.
    """
    low, high = (int(bound) for bound in torch.aminmax(codes))
    if low < 0 or high >= size:
        raise VqzooError(f"{where}: codes {low}..{high} for a codebook of {size} entries")


def _kind(tensor: Tensor) -> str:
    return f"but {tuple(tensor.shape)} {tensor.dtype}".replace("torch.", "")
