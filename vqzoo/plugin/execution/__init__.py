"""Contracts about where work runs."""
