"""The CPU's kernels, compiled by numba, and the vector types that they are written in."""
