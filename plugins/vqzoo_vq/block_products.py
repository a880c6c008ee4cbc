"""Products with the codes of blocks of columns or rows."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from vqzoo.numerics.decoding.column_products import (
    CodedBlocks,
    CodedRowBlocks,
    multiply_coded_blocks,
    multiply_coded_row_blocks,
)
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.numerics.decoding.product import multiply_residual
from vqzoo.plugin import Code
from vqzoo.plugin.formats.packed_indices import held_codes
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
    for part in _parts(code, params, shape):
        stop = start + part.blocks * part.codebooks.shape[3]
        product = multiply_residual(x[:, start:stop], part.codes, part.codebooks, part.width)
        if product is None:
            return None
        out = product if out is None else out.add_(product)
        start = stop
    return out


def multiply_blocks_by_columns(
    code: Code, params: Mapping[str, Tensor], panels: Panels, shape: Cut
) -> Tensor:
    """W·X, (m, count); other arguments as for `multiply_blocks`.

    Args:
        params: `codebook` and `codebook_tail`, and `scale` if rows have one.
        panels: X, (n, count).
    """
    return multiply_coded_blocks(list(_parts(code, params, shape)), panels, params.get("scale"))


def multiply_row_blocks_by_columns(
    code: Code, params: Mapping[str, Tensor], panels: Panels, shape: Cut
) -> Tensor:
    """W·X, (m, count), where rows are cut.

    Args:
        code: its parts `codes` and `codes_tail` are (blocks, n).
        params: `codebook` and `codebook_tail`, and `scale` if rows have one.
        panels: X, (n, count).
        shape: of the blocks, of rows.
    """
    parts = []
    for suffix in shape.suffixes:
        codes, width = held_codes(code.index_part("codes" + suffix))
        parts.append(CodedRowBlocks(codes, params["codebook" + suffix], width))
    return multiply_coded_row_blocks(parts, panels, params.get("scale"))


def _parts(code: Code, params: Mapping[str, Tensor], shape: Cut) -> Iterator[CodedBlocks]:
    """The whole blocks and the tail."""
    for suffix, (blocks, _) in zip(shape.suffixes, shape.widths, strict=True):
        part, codebooks = code.index_part("codes" + suffix), params["codebook" + suffix]
        codes, width = held_codes(part)
        if codes.dim() == 2:
            codes, codebooks = codes[:, None], codebooks[:, None]
        yield CodedBlocks(codes, codebooks, blocks, width)
