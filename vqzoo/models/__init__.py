"""Dense models: their names and weights, and the architectures that vqzoo adds to timm."""
