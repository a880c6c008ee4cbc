"""Clustering and decoding on devices other than the CPU: plain torch, and Triton on CUDA."""
