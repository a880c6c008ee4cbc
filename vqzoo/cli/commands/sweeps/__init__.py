"""Commands that run many cells, and show their results."""
