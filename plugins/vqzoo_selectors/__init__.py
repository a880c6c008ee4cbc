"""The layer selectors dense, conv, all, largest:N and pattern."""

from vqzoo.plugin import LayerSelector, hookimpl
from vqzoo_selectors.kinds import All, Conv, Dense
from vqzoo_selectors.largest import Largest
from vqzoo_selectors.pattern import Pattern

vqzoo_contract = 1


@hookimpl
def vqzoo_layer_selectors() -> list[LayerSelector]:
    """The built-in selectors."""
    return [All(), Conv(), Dense(), Largest(), Pattern()]
