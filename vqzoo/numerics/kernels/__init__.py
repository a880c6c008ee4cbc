"""What the CPU runs: kernels compiled by numba, and the vectors that they are written in."""
