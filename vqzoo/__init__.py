"""vqzoo: vector quantization for PyTorch vision models."""
