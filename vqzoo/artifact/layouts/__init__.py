"""How tensors and metadata lie in `vqzoo.safetensors`: plainly, or compactly."""
