"""Kernels that multiply codes by one input or a few, and pieces of all that multiply by codes."""
