"""Cells: commands as units of work, on any executor."""
