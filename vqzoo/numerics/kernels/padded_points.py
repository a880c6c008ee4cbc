"""Points as the kernels take them: centred, scaled to around 1, padded to whole vectors.

x is contiguous float32, with coordinate l of point i at l·stride + i and `stride` a multiple of
`PART`; points that pad it have weight zero.
"""

import numpy as np

from vqzoo.numerics.compiled import compiled

PART = 64  # points that are padded to and summed together, on every processor: whole vectors


@compiled()
def row_stride(n):  # type: ignore[no-untyped-def]
    """Floats from one dimension of n points to the next: whole parts, and no multiple of 4 KiB.

    Rows a multiple of 4 KiB apart would compete for the same few lines of the first-level cache.
    """
    stride = (n + PART - 1) // PART * PART
    return stride + PART if stride % 1024 == 0 else stride


@compiled()
def scale_of(largest):  # type: ignore[no-untyped-def]
    """The power of two that scales a magnitude to near 1, so that its square fits float32."""
    if largest <= 0.0:
        return np.float32(1.0)
    exponent = np.floor(np.log2(largest))
    return np.float32(2.0 ** -min(max(exponent, -100.0), 100.0))


@compiled()
def center(points, offset, x, stride):  # type: ignore[no-untyped-def]
    """Copy points (d, n) into x, centred and scaled; fill `offset` (d) and return the scale.

    x must hold zeros, or be the points themselves. Raises ValueError if a point is not finite.
    """
    d, n = points.shape
    largest = 0.0
    for dim in range(d):
        mean = 0.0
        for i in range(n):
            mean += points[dim, i]
        offset[dim] = mean / n
        if not np.isfinite(mean):
            raise ValueError("points must be finite")
        far = np.float32(0.0)
        for i in range(n):
            far = max(far, abs(points[dim, i] - offset[dim]))
        largest = max(largest, far)
    scale = scale_of(largest)
    for dim in range(d):
        for i in range(n):
            x[dim * stride + i] = (points[dim, i] - offset[dim]) * scale
    return scale


@compiled()
def uncenter(scaled, scale, offset, centroids):  # type: ignore[no-untyped-def]
    """Undo `center` on the scaled centroids (k, d); write `centroids`."""
    for j in range(scaled.shape[0]):
        for dim in range(scaled.shape[1]):
            centroids[j, dim] = scaled[j, dim] / scale + offset[dim]


@compiled()
def pad_weights(weights, masses):  # type: ignore[no-untyped-def]
    """Copy weights (n) into masses (stride), zeros from n on; weights all zero become all 1."""
    n = weights.shape[0]
    largest = np.float32(0.0)
    for i in range(n):
        masses[i] = weights[i]
        largest = max(largest, weights[i])
    if largest <= 0.0:
        for i in range(n):
            masses[i] = 1.0
