"""Decoding on an accelerator, by lookups in plain torch or a Triton kernel."""

import torch
from torch import Tensor

from vqzoo.numerics.accelerated.accelerators import has_triton

VALUES = 1 << 24  # decoded at once, each with an index


def decode_blocks_on_device(codes: Tensor, codebooks: Tensor, out: Tensor) -> Tensor:
    """`decode.decode_residual` on the device of its tensors, whose shapes have been checked."""
    refuse_unknown(codes, codebooks.shape[2])
    if has_triton(out.device):
        from vqzoo.numerics.accelerated import triton_decode

        return triton_decode.decode_blocks(codes, codebooks, out)
    return decode_blocks(codes, codebooks, out)


def decode_blocks(codes: Tensor, codebooks: Tensor, out: Tensor) -> Tensor:
    """Decode in plain torch, a few blocks at a time so that their indices take little memory."""
    s, stages, m = codes.shape
    books, _, k, d = codebooks.shape
    rows = codebooks.float().reshape(-1, d)
    target = out.unflatten(1, (s, d))
    width = max(1, VALUES // (m * d))
    for first in range(0, s, width):
        part = codes[first : first + width].long()
        if books > 1:
            block = torch.arange(first, first + len(part), device=codes.device)
            part += block[:, None, None] * (stages * k)
        total = rows.index_select(0, part[:, 0].reshape(-1))
        for stage in range(1, stages):
            total += rows.index_select(0, part[:, stage].reshape(-1) + stage * k)
        target[:, first : first + width] = total.view(-1, m, d).transpose(0, 1)
    return out


def decode_scalars_on_device(codes: Tensor, centroids: Tensor, out: Tensor) -> Tensor:
    """`decode.decode_scalar` on the device of its tensors, in plain torch and one pass."""
    refuse_unknown(codes, len(centroids))
    flat, target, values = codes.reshape(-1), out.view(-1), centroids.float()
    for start in range(0, len(flat), VALUES):
        part = slice(start, start + VALUES)
        target[part] = values.index_select(0, flat[part].int())
    return out


def refuse_unknown(codes: Tensor, k: int) -> None:
    """Raise ValueError if a code is not below k."""
    if codes.numel() == 0 or (codes.dtype == torch.uint8 and k >= 256):
        return
    if bool((codes.amax() >= k) | (codes.amin() < 0)):
        raise ValueError(f"a code is out of range: there are {k} centroids")
