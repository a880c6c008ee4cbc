"""Engines that run the cells of a sweep."""

from vqzoo.plugin import Engine, hookimpl
from vqzoo_executors.local import Local
from vqzoo_executors.ray_engine import Ray

vqzoo_contract = 1


@hookimpl
def vqzoo_executors() -> list[Engine]:
    """The built-in engines."""
    return [Local(), Ray()]
