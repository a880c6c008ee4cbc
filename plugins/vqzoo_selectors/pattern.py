"""The selector by name."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from vqzoo.plugin import LayerInfo, LayerSelector


class Pattern(LayerSelector):
    """Shell patterns on module paths; what no other selector claims is read as one."""

    name = "pattern"
    catch_all = True
    summary = "names and shell patterns: 'classifier.*', head"

    def accepts(self, text: str) -> bool:
        """Any text."""
        return True

    def select(self, layers: Sequence[LayerInfo], text: str) -> Mapping[str, str]:
        """Layers whose path matches; `pattern:` before the pattern is allowed."""
        pattern = text.removeprefix("pattern:")
        return {
            layer.name: f"matches {pattern}" for layer in layers if fnmatchcase(layer.name, pattern)
        }
