"""Decoding: from codes and codebooks to matrices, and gradients back to codebooks."""
