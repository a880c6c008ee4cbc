"""Codes of a matrix coded by the classes of their row and column."""
