"""Write a new plugin: a small package that works as it is."""

from vqzoo.scaffold.write import write_plugin

__all__ = ["write_plugin"]
