"""A method as the core sees it: registered, called through the core's own isolation."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vqzoo.compression.decode import decode
from vqzoo.compression.options import validate_options
from vqzoo.compression.plugin_calls import (
    layer_context,
    quantize_matrix,
    transform_matrix,
    wrap,
)
from vqzoo.plugin.code import Code, MethodCode
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.plugin.method import LayerContext, Method, Options, SkipLayer
from vqzoo.plugin.quantizer import Quantizer
from vqzoo.plugin.registry import Origin, Registered
from vqzoo.plugin.selector import LayerInfo
from vqzoo.plugin.transform import Transform
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, Case
from vqzoo.testing.rounding import Rounding

ORIGIN = Origin("under-test", "under-test", "0")


@dataclass(frozen=True)
class Subject(ABC):
    """The method under test among the installed plugins.

    Attributes:
        plugins: the installed ones, with whatever else claims its name taken away.
        notes: what it said through `context.note`.
    """

    plugins: Plugins
    notes: list[str] = field(default_factory=list, kw_only=True)

    @property
    @abstractmethod
    def method(self) -> Method:
        """The instance."""

    @property
    @abstractmethod
    def ladder(self) -> Sequence[Mapping[str, Any]]:
        """Options to try it with, as a user would give them."""

    @abstractmethod
    def fit(self, case: Case, options: Any) -> Any:
        """Options as they are used for a shape.

        Raises:
            SkipLayer: they cannot be.
        """

    @abstractmethod
    def quantize(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE, seed: int = 0
    ) -> MethodCode:
        """Compress a matrix as the core does; its check of the Code included.

        Raises:
            PluginError: the method failed, or returned what the core refuses.
        """

    def rungs(self, case: Case) -> Iterator[tuple[str, Any]]:
        """The ladder, from coarse to fine: as text, and as options fitted to a shape.

        Rungs that `fit` refuses for this shape are left out.
        """
        return self._fitted(self.ladder, case)

    def variants(self, case: Case) -> Iterator[tuple[str, Any]]:
        """The ladder, and every value of each option that has few of them."""
        return self._fitted([*self.ladder, *self._choices()], case)

    def _choices(self) -> Iterator[Mapping[str, Any]]:
        schema = self.method.Options.model_json_schema()
        for name, spec in schema.get("properties", {}).items():
            values = [False, True] if spec.get("type") == "boolean" else spec.get("enum", [])
            for value in values:
                yield {**self.ladder[0], name: value}

    def _fitted(
        self, choices: Sequence[Mapping[str, Any]], case: Case
    ) -> Iterator[tuple[str, Any]]:
        for given in choices:
            text = ", ".join(f"{name}={value}" for name, value in given.items()) or "defaults"
            options = validate_options(self.method, given)
            try:
                yield text, self.fit(case, options)
            except SkipLayer as reason:
                require(bool(str(reason)), f"{text}: SkipLayer was raised without a reason")

    def finest(self, case: Case = REFERENCE) -> Any:
        """The last rung of the ladder, fitted."""
        rungs = list(self.rungs(case))
        require(bool(rungs), f"no rung of the ladder fits a {case.name} matrix")
        return rungs[-1][1]

    def compress(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE
    ) -> tuple[MethodCode, Tensor] | None:
        """A code and the matrix that it decodes to; None where the method skips it."""
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


@dataclass(frozen=True)
class QuantizerSubject(Subject):
    """A quantizer under test."""

    quantizer: Quantizer

    @property
    def method(self) -> Method:
        """The quantizer."""
        return self.quantizer

    @property
    def ladder(self) -> Sequence[Mapping[str, Any]]:
        """What it declares."""
        return self.quantizer.ladder

    @property
    def entry(self) -> Registered[Quantizer]:
        """As it is registered."""
        return self.plugins.quantizers.get(self.quantizer.name)

    def fit(self, case: Case, options: Any) -> Any:
        """As the quantizer fits them."""
        return self.quantizer.fit(*case.matrix_shape, options, self.notes.append)

    def quantize(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE, seed: int = 0
    ) -> MethodCode:
        """Its code."""
        context = self.context(case, seed, matrix.device)
        return quantize_matrix(self.plugins, self.entry, matrix, options, context)


@dataclass(frozen=True)
class TransformSubject(Subject):
    """A transform under test, with 8-bit rounding behind it wherever a code is needed."""

    transform: Transform
    trials: Sequence[Mapping[str, Any]]

    @property
    def method(self) -> Method:
        """The transform."""
        return self.transform

    @property
    def ladder(self) -> Sequence[Mapping[str, Any]]:
        """The options that it is to be tried with."""
        return self.trials

    @property
    def entry(self) -> Registered[Transform]:
        """As it is registered."""
        return self.plugins.transforms.get(self.transform.name)

    def fit(self, case: Case, options: Any) -> Any:
        """Transforms take them as they are."""
        return options

    def forward(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE, seed: int = 0
    ) -> tuple[Tensor, Code] | None:
        """What it makes of a matrix, checked by the core; None where it skips it."""
        context = self.context(case, seed, matrix.device)
        try:
            return transform_matrix(self.entry, matrix, options, context)
        except SkipLayer as reason:
            require(bool(str(reason)), f"{case.name}: SkipLayer was raised without a reason")
            return None

    def quantize(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE, seed: int = 0
    ) -> MethodCode:
        """The code of the transform, what it made rounded to 8 bits as the child."""
        context = self.context(case, seed, matrix.device)
        changed, code = transform_matrix(self.entry, matrix, options, context)
        return wrap(self.plugins, self.entry, code, self.rounded(changed, case), context)

    def rounded(self, matrix: Tensor, case: Case = REFERENCE) -> MethodCode:
        """A matrix of any shape, rounded to 8 bits."""
        rounding = self.plugins.quantizers.get(Rounding.name)
        context = self.context(case, device=matrix.device)
        return quantize_matrix(self.plugins, rounding, matrix, Options(), context)


def subject_of(quantizer: Quantizer | type[Quantizer]) -> QuantizerSubject:
    """Register a quantizer beside what is installed, in place of what has its name."""
    made = quantizer() if isinstance(quantizer, type) else quantizer
    return QuantizerSubject(_plugins_with(quantizers=[made]), made)


def transform_subject_of(
    transform: Transform | type[Transform], trials: Sequence[Mapping[str, Any]]
) -> TransformSubject:
    """Register a transform beside what is installed, in place of what has its name."""
    made = transform() if isinstance(transform, type) else transform
    plugins = _plugins_with(transforms=[made], quantizers=[Rounding()])
    return TransformSubject(plugins, made, trials or ({},))


def _plugins_with(**added: Sequence[Any]) -> Plugins:
    """The installed plugins, and `added` items by registry in place of what has their names."""
    installed, plugins = installed_plugins(), Plugins()
    taken = {item.name for items in added.values() for item in items}
    for kind in ("quantizers", "transforms", "selectors", "packings"):
        registry = getattr(plugins, kind)
        for entry in getattr(installed, kind):
            if entry.name not in taken:
                registry.add(entry.name, entry.item, entry.origin)
        for item in added.get(kind, ()):
            registry.add(item.name, item, ORIGIN)
    return plugins
