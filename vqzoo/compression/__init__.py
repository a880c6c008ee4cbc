"""Compress a network's layers with the methods of plugins, and decode them again."""
