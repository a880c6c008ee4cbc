"""Products with the codes of blocks of columns."""

from collections.abc import Mapping

from torch import Tensor

from vqzoo.numerics.decoding.product import multiply_residual
from vqzoo.plugin import Code, Indices
from vqzoo.plugin.formats.packed_indices import PackedIndices
from vqzoo_vq.blocks import Cut


def multiply_blocks(
    code: Code, params: Mapping[str, Tensor], x: Tensor, shape: Cut
) -> Tensor | None:
    """x·Wᵀ without row scales; None where decoding is faster.

    Args:
        code: its parts `codes` and `codes_tail` are (blocks, m) or (blocks, stages, m).
        params: `codebook` and `codebook_tail`.
        x: (r, n) float32.
        shape: of the blocks, of columns.
    """
    out: Tensor | None = None
    start = 0
    for suffix, (blocks, d) in zip(shape.suffixes, shape.widths, strict=True):
        part, codebooks = code.parts["codes" + suffix], params["codebook" + suffix]
        assert isinstance(part, Indices)
        if isinstance(part, PackedIndices):
            codes, width = part.packed, part.width
        else:
            codes, width = part.values, 8
        if codes.dim() == 2:
            codes, codebooks = codes[:, None], codebooks[:, None]
        columns = x[:, start : start + blocks * d]
        product = multiply_residual(columns, codes, codebooks, width)
        if product is None:
            return None
        out = product if out is None else out.add_(product)
        start += blocks * d
    return out
