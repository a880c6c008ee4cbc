"""Reconstruction of a compressed network block by block."""
