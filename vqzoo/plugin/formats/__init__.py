"""Contracts about the files of other libraries."""
