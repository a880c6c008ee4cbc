"""k-means on vectors and on numbers, by Euclidean and other metrics, and on residuals."""
