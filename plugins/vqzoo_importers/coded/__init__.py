"""Weights as other libraries code them, and the codes of methods that they become."""
