"""Layers that are compressed in other processes, several at a time."""
