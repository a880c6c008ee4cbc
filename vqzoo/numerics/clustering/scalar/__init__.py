"""The steps of scalar k-means: bins, shortest paths over them, windows around the cuts."""
