"""The steps of Lloyd's algorithm as Triton kernels; `torch_kernels` specifies them.

Import this module only where Triton is used: it is an optional part of torch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqzoo.numerics.accelerated.scaled_points import ScaledPoints
from vqzoo.numerics.accelerated.torch_kernels import Part
from vqzoo.numerics.arrays import code_dtype

# A program of `nearest` keeps the coordinates of its points in registers. The inner loop, compiled
# for compute capability 9.0 and disassembled, has 8 instructions a point and centroid at d = 4, 15
# at d = 8, 25 at d = 16, 58 at d = 32, d of which are multiply-adds; registers spill only above
# d = 16.
POINTS = 64
CENTROIDS = 16  # at once
_CENTROIDS_OF_FEW = 32  # at once, where there are few dimensions
_FEW = 4
_WARPS, _WARPS_OF_MANY = 4, 8
_MANY = 17  # dimensions from which on the registers of more warps are needed
ADDED = 256  # points of a program of `add_up`


@triton.jit
def _load_points(start, stride, dim, inside, offsets, scale):  # type: ignore[no-untyped-def]
    place = start + tl.full((), dim, tl.int64) * stride
    raw = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    return (raw - tl.load(offsets + dim)) * scale


@triton.jit
def nearest_kernel(  # type: ignore[no-untyped-def]
    points,
    problem_stride,
    dim_stride,
    point_stride,
    offsets,
    scales,
    centroids,  # (batch, d, k)
    halves,  # (batch, k), |c|²/2
    codes,
    costs,
    n,
    k,
    D: tl.constexpr,
    COSTS: tl.constexpr,
    POINTS: tl.constexpr,
    CENTROIDS: tl.constexpr,
):
    tiles = tl.cdiv(n, POINTS)
    problem = (tl.program_id(0) // tiles).to(tl.int64)
    i = (tl.program_id(0) % tiles).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = i < n
    start = points + problem * problem_stride + i * point_stride
    offsets += problem * D
    centroids += problem * D * k
    scale = tl.load(scales + problem)
    # Each column of a tile keeps its own minimum, so that the loop needs no reduction.
    best = tl.full((POINTS, CENTROIDS), float("inf"), tl.float32)
    best_at = tl.zeros((POINTS, CENTROIDS), tl.int32)
    column = tl.arange(0, CENTROIDS)
    for at in range(0, k, CENTROIDS):
        known = at + column < k
        half = tl.load(halves + problem * k + at + column, mask=known, other=float("inf"))
        score = tl.zeros((POINTS, CENTROIDS), tl.float32) + half[None, :]
        for dim in tl.static_range(D):
            x = _load_points(start, dim_stride, dim, inside, offsets, scale)
            c = tl.load(centroids + dim * k + at + column, mask=known, other=0.0)
            score = tl.fma(x[:, None], -c[None, :], score)
        closer = score < best
        best = tl.where(closer, score, best)
        best_at = tl.where(closer, at, best_at)
    least = tl.min(best, 1)
    code = tl.min(tl.where(best == least[:, None], best_at + column[None, :], 2147483647), 1)
    tl.store(codes + problem * n + i, code, mask=inside)
    if COSTS:
        cost = tl.zeros((POINTS,), tl.float32)
        for dim in tl.static_range(D):
            x = _load_points(start, dim_stride, dim, inside, offsets, scale)
            difference = x - tl.load(centroids + dim * k + code, mask=inside, other=0.0)
            cost += difference * difference
        tl.store(costs + problem * n + i, cost, mask=inside)


@triton.jit
def add_up_kernel(  # type: ignore[no-untyped-def]
    points,
    problem_stride,
    dim_stride,
    point_stride,
    offsets,
    scales,
    mass,
    codes,
    axes,
    borders,
    totals,  # (batch, k, d + 1), int64: sums of the points, then of the mass
    n,
    k,
    unit,
    D: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SQUARES: tl.constexpr,
    UPPER: tl.constexpr,
    POINTS: tl.constexpr,
):
    tiles = tl.cdiv(n, POINTS)
    problem = (tl.program_id(0) // tiles).to(tl.int64)
    i = (tl.program_id(0) % tiles).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = i < n
    start = points + problem * problem_stride + i * point_stride
    offsets += problem * D
    scale = tl.load(scales + problem)
    cluster = problem * k + tl.load(codes + problem * n + i, mask=inside, other=0).to(tl.int64)
    if UPPER:
        axis = tl.load(axes + cluster, mask=inside, other=0)
        raw = tl.load(start + axis * dim_stride, mask=inside, other=0.0).to(tl.float32)
        offset = tl.load(offsets + axis, mask=inside, other=0.0)
        border = tl.load(borders + cluster, mask=inside, other=0.0)
        inside = inside & ((raw - offset) * scale > border)
    # In integer units, whose sum is the same in whatever order the atomic additions arrive.
    units = tl.full((POINTS,), 1.0, tl.float32) * unit
    if WEIGHTED:
        units *= tl.load(mass + problem * n + i, mask=inside, other=0.0)
    to = totals + cluster * (D + 1)
    for dim in tl.static_range(D):
        x = _load_points(start, dim_stride, dim, inside, offsets, scale)
        if SQUARES:
            x = x * x
        tl.atomic_add(to + dim, (x * units).to(tl.int64), mask=inside, sem="relaxed")
    tl.atomic_add(to + D, units.to(tl.int64), mask=inside, sem="relaxed")


def nearest(x: ScaledPoints, centroids: Tensor, with_costs: bool) -> tuple[Tensor, Tensor]:
    """`torch_kernels.nearest`, for d up to 32: only the smallest distances are ever written."""
    batch, d, n = x.values.shape
    k = centroids.shape[1]
    codes = torch.empty((batch, n), dtype=code_dtype(k), device=centroids.device)
    costs = torch.empty((batch, n) if with_costs else 0, device=centroids.device)
    with torch.cuda.device_of(codes):
        nearest_kernel[(batch * triton.cdiv(n, POINTS),)](
            x.values,
            *x.values.stride(),
            x.offset,
            x.scale,
            centroids.transpose(1, 2).contiguous(),
            centroids.square().sum(2) / 2,
            codes,
            costs,
            n,
            k,
            D=d,
            COSTS=with_costs,
            POINTS=POINTS,
            CENTROIDS=_CENTROIDS_OF_FEW if d <= _FEW and k > CENTROIDS else CENTROIDS,
            num_warps=_WARPS if d < _MANY else _WARPS_OF_MANY,
            enable_fp_fusion=True,
        )
    return codes, costs


def add_up(
    x: ScaledPoints, mass: Tensor | None, codes: Tensor, k: int, part: Part
) -> tuple[Tensor, Tensor]:
    """`torch_kernels.add_up`, for d up to 32: exact sums of points rounded to one unit.

    The unit is chosen so that the sum of n squares, at most 16 each, fits int64: 2^-35 for fewer
    than 2^23 points.
    """
    batch, d, n = x.values.shape
    unit = 2.0 ** (58 - n.bit_length())
    totals = torch.zeros((batch, k, d + 1), dtype=torch.int64, device=codes.device)
    unused = x.offset
    with torch.cuda.device_of(codes):
        add_up_kernel[(batch * triton.cdiv(n, ADDED),)](
            x.values,
            *x.values.stride(),
            x.offset,
            x.scale,
            unused if mass is None else mass,
            codes,
            unused if part.axes is None else part.axes,
            unused if part.borders is None else part.borders,
            totals,
            n,
            k,
            unit,
            D=d,
            WEIGHTED=mass is not None,
            SQUARES=part.squares,
            UPPER=part.axes is not None,
            POINTS=ADDED,
            enable_fp_fusion=True,
        )
    scaled = totals.double() / unit
    return scaled[:, :, :d], scaled[:, :, d]
