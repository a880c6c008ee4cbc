"""Engines that run the cells of a sweep."""

from vqzoo.plugin import Engine, hookimpl

vqzoo_contract = 1


@hookimpl
def vqzoo_executors() -> list[Engine]:
    """The built-in engines."""
    return []
