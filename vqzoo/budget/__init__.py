"""A whole network under one budget: one price of a bit for all layers, found by search."""
