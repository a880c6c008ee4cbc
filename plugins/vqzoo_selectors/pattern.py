"""The selector of layers by name."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from vqzoo.plugin import LayerInfo, LayerSelector


class Pattern(LayerSelector):
    """Shell patterns on module paths; any text that no other selector accepts is a pattern."""

    name = "pattern"
    catch_all = True
    summary = "names and shell patterns: 'classifier.*', head"

    def accepts(self, text: str) -> bool:
        """Accept any text."""
        return True

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """Layers whose path matches the pattern, which may be prefixed with `pattern:`."""
        pattern = text.removeprefix("pattern:")
        return {
            layer.name: f"matches {pattern}" for layer in layers if fnmatchcase(layer.name, pattern)
        }
