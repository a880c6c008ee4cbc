"""Cells: commands as units of work."""
