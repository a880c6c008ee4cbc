"""Dense models: names, weights, and the architectures that vqzoo adds to timm."""
