"""How scalar k-means finds its cuts: bins, shortest paths, windows."""
