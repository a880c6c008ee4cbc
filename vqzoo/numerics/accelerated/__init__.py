"""The same on other devices than the CPU: plain torch, and Triton on CUDA."""
