"""Kernels that multiply a matrix of codes by panels of columns, and those that make panels."""
