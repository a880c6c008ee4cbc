"""k-means in its variants: scalar, product, residual, weighted."""
