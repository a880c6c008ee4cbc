"""Products of layers whose weights are codes, decoded a few rows at a time."""
