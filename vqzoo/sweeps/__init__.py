"""Sweeps: grids of cells, and the table of their results."""
