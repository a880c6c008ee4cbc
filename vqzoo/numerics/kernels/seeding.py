"""k-means++ on one problem, as kernels; points are those of `padded_points`."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vqzoo.numerics.compiled import compiled
from vqzoo.numerics.kernels.codegen import address, fold, spread
from vqzoo.numerics.kernels.padded_points import PART

_WIDTH = PART // 2  # two vectors of this width fit the registers of AVX
_WIDE = ir.VectorType(ir.FloatType(), _WIDTH)


@compiled()
def next_uniform(state):  # type: ignore[no-untyped-def]
    """The next number in [0, 1) of a generator with one uint64 of state (SplitMix64, Steele et al.
    2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled()
def generator(seed, problem):  # type: ignore[no-untyped-def]
    """The initial state of `next_uniform` for problem number `problem` of a batch."""
    state = np.empty(1, np.uint64)
    state[0] = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(problem)
    next_uniform(state)
    return state


@intrinsic
def _add_center(
    typing_context: Any, x: Any, first: Any, stride: Any, center: Any, weights: Any, distances: Any
) -> Any:
    """Lower the squared distances of `PART` points from `first` on to a new center (d), float32.

    Updates distances[first:first + PART] and returns the sum of weights times distances.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, first, stride, center, weights, distances = (
            (kind, value) for kind, value in zip(signature.args, args, strict=True)
        )

        def at(array: Any, index: Any, to: Any) -> Any:
            return address(context, builder, array[0], array[1], index, to)

        def load(array: Any, index: Any) -> Any:
            value = builder.load(at(array, index, _WIDE))
            value.align = 4
            return value

        def masses(start: Any) -> Any:
            """Weights times new distances of one vector of points."""
            squares = cgutils.alloca_once_value(builder, ir.Constant(_WIDE, [0.0] * _WIDTH))
            with cgutils.for_range(builder, dimensions) as loop:
                row = builder.add(start, builder.mul(loop.index, stride[1]))
                one = spread(builder, builder.load(at(center, loop.index, ir.FloatType())), _WIDE)
                off = builder.fsub(load(x, row), one)
                builder.store(builder.call(fused, [off, off, builder.load(squares)]), squares)
            square, before = builder.load(squares), load(distances, start)
            # Not a comparison and a select: LLVM would make masked stores of them, which take
            # AMD's processors ten times as long as all the rest.
            least = builder.call(minimum, [square, before], fastmath=("nnan",))
            builder.store(least, at(distances, start, _WIDE)).align = 4
            return builder.fmul(least, load(weights, start))

        dimensions = context.make_array(center[0])(context, builder, center[1]).nitems
        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_WIDE, [_WIDE] * 3), f"llvm.fmuladd.v{_WIDTH}f32"
        )
        minimum = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_WIDE, [_WIDE] * 2), f"llvm.minnum.v{_WIDTH}f32"
        )
        low = masses(first[1])
        high = masses(builder.add(first[1], ir.Constant(first[1].type, _WIDTH)))
        return fold(builder, builder.fadd(low, high), _WIDTH)

    return types.float32(x, types.intp, types.intp, center, weights, distances), generate


@compiled()
def _draw(weights, distances, masses, everything, state):  # type: ignore[no-untyped-def]
    """Draw a point by weight times squared distance, of which `masses` are the sums by part, and
    `everything` the sum; -1 where all are zero."""
    parts = masses.shape[0]
    remaining = next_uniform(state) * everything
    part = 0
    while part < parts - 1 and remaining >= masses[part]:
        remaining -= masses[part]
        part += 1
    chosen = -1
    for i in range(part * PART, part * PART + PART):
        mass = weights[i] * distances[i]
        if mass > np.float32(0.0):
            chosen = i
            if remaining < mass:
                break
        remaining -= mass
    return chosen


@compiled()
def seed_plus_plus(x, stride, d, weights, state, centroids):  # type: ignore[no-untyped-def]
    """k-means++ (Arthur, Vassilvitskii 2007): draw points by weight · squared distance.

    Where fewer than k points are distinct, the surplus centroids repeat drawn points. `stride` is
    a multiple of `PART`. Writes centroids (k, d).
    """
    distances = np.ones(stride, np.float32)  # the first point is drawn by weight alone
    masses = np.empty(stride // PART, np.float64)
    for part in range(masses.shape[0]):
        mass = 0.0
        for i in range(part * PART, part * PART + PART):
            mass += weights[i]
        masses[part] = mass
    center = np.empty(d, np.float32)
    for j in range(centroids.shape[0]):
        everything = 0.0
        for part in range(masses.shape[0]):
            everything += masses[part]
        chosen = _draw(weights, distances, masses, everything, state)
        if chosen < 0:  # rounding, or nothing left to draw: any point with a weight will do
            chosen = int(next_uniform(state) * stride)
            while weights[chosen] <= 0.0:
                chosen = (chosen + 1) % stride
        for dim in range(d):
            centroids[j, dim] = center[dim] = x[dim * stride + chosen]
        if j == 0:
            distances[:] = np.float32(1e30)
        for part in range(masses.shape[0]):
            masses[part] = _add_center(x, part * PART, stride, center, weights, distances)
