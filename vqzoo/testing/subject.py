"""A quantizer as the core sees it: registered, called through the core's own isolation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vqzoo.compression.compress import layer_context, parse_options, quantize_matrix
from vqzoo.compression.decode import decode
from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.plugin.method import LayerContext, SkipLayer
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.registry import Origin, Registered
from vqzoo.plugin.selector import LayerInfo
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, Case

ORIGIN = Origin("under-test", "under-test", "0")


@dataclass(frozen=True)
class Subject:
    """The quantizer under test among the installed plugins.

    Attributes:
        quantizer: the instance.
        plugins: the installed ones, with whatever else claims its name taken away.
        notes: what it said through `context.note`.
    """

    quantizer: Quantizer
    plugins: Plugins
    notes: list[str] = field(default_factory=list)

    @property
    def entry(self) -> Registered[Quantizer]:
        """As it is registered."""
        return self.plugins.quantizers.get(self.quantizer.name)

    def rungs(self, case: Case) -> Iterator[tuple[str, Any]]:
        """The declared ladder, from coarse to fine: as text, and as options fitted to a shape.

        Rungs that `fit` refuses for this shape are left out.
        """
        return self._fitted(self.quantizer.ladder, case)

    def variants(self, case: Case) -> Iterator[tuple[str, Any]]:
        """The ladder, and every value of each option that has few of them."""
        return self._fitted([*self.quantizer.ladder, *self._choices()], case)

    def _choices(self) -> Iterator[Mapping[str, Any]]:
        schema = self.quantizer.Options.model_json_schema()
        for name, spec in schema.get("properties", {}).items():
            values = [False, True] if spec.get("type") == "boolean" else spec.get("enum", [])
            for value in values:
                yield {**self.quantizer.ladder[0], name: value}

    def _fitted(
        self, choices: Sequence[Mapping[str, Any]], case: Case
    ) -> Iterator[tuple[str, Any]]:
        for given in choices:
            text = ", ".join(f"{name}={value}" for name, value in given.items()) or "defaults"
            options = parse_options(self.quantizer, given)
            try:
                yield text, self.quantizer.fit(*case.matrix_shape, options, self.notes.append)
            except SkipLayer as reason:
                require(bool(str(reason)), f"{text}: SkipLayer was raised without a reason")

    def finest(self, case: Case = REFERENCE) -> Any:
        """The last rung of the ladder, fitted."""
        rungs = list(self.rungs(case))
        require(bool(rungs), f"no rung of the ladder fits a {case.name} matrix")
        return rungs[-1][1]

    def quantize(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE, seed: int = 0
    ) -> MethodCode:
        """Compress a matrix as the core does; its check of the Code included.

        Raises:
            PluginError: the quantizer failed, or returned what the core refuses.
        """
        context = self.context(case, seed, matrix.device)
        return quantize_matrix(self.plugins, self.entry, matrix, options, context)

    def compress(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE
    ) -> tuple[MethodCode, Tensor] | None:
        """A code and the matrix that it decodes to; None where the quantizer skips it."""
        try:
            compressed = self.quantize(matrix, options, case)
        except SkipLayer as reason:
            require(bool(str(reason)), f"{case.name}: SkipLayer was raised without a reason")
            return None
        return compressed, decode(compressed, self.plugins)

    def context(
        self, case: Case, seed: int = 0, device: torch.device | None = None
    ) -> LayerContext:
        """A context for a case."""
        return layer_context(
            self.plugins,
            LayerInfo("layer", case.kind, case.shape, case.groups),
            seed=seed,
            device=device or torch.device("cpu"),
            note=self.notes.append,
            progress=lambda done, total: None,
        )


def subject_of(quantizer: Quantizer | type[Quantizer]) -> Subject:
    """Register a quantizer beside what is installed, in place of what has its name."""
    made = quantizer() if isinstance(quantizer, type) else quantizer
    return Subject(made, plugins_with(made.name, quantizer=made))


def plugins_with(name: str, **item: Any) -> Plugins:
    """The installed plugins, what is called `name` replaced by the one item given by its kind."""
    installed, plugins = installed_plugins(), Plugins()
    registries = ("quantizer", "transform", "selector", "packing")
    for kind in registries:
        registry = getattr(plugins, kind + "s")
        for entry in getattr(installed, kind + "s"):
            if entry.name != name:
                registry.add(entry.name, entry.item, entry.origin)
        if kind in item:
            registry.add(name, item[kind], ORIGIN)
    return plugins
