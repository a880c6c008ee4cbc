"""A method under test as the core sees it: registered, and called through the core's isolation."""

import copy
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

Results = dict[tuple[Case, str, bytes], tuple[MethodCode, Tensor] | None]


@dataclass(frozen=True)
class Subject(ABC):
    """The method under test among the installed plugins.

    Attributes:
        plugins: the installed plugins, without any other method of the same name.
        notes: the notes that it gave through `context.note`.
        results: what `compress` returned, by case, options and bytes of the matrix. The subjects
            of one check share it, because every rule compresses the same matrices.
    """

    plugins: Plugins
    notes: list[str] = field(default_factory=list, kw_only=True)
    results: Results = field(default_factory=dict, kw_only=True)

    @property
    @abstractmethod
    def method(self) -> Method:
        """The instance under test."""

    @property
    @abstractmethod
    def ladder(self) -> Sequence[Mapping[str, Any]]:
        """Options to test it with, as a user would give them, from coarse to fine."""

    @abstractmethod
    def fit(self, case: Case, options: Any) -> Any:
        """Fit options to the shape of a case.

        Raises:
            SkipLayer: they cannot be fitted.
        """

    @abstractmethod
    def quantize(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE, seed: int = 0
    ) -> MethodCode:
        """Compress a matrix as the core does, its check of the Code included.

        Raises:
            PluginError: the method failed, or returned something that the core refuses.
        """

    def rungs(self, case: Case) -> Iterator[tuple[str, Any]]:
        """Yield the rungs of the ladder as text and as options fitted to the shape of a case.

        Rungs that `fit` refuses for this shape are left out.
        """
        return self._fitted(self.ladder, case)

    def variants(self, case: Case) -> Iterator[tuple[str, Any]]:
        """Like `rungs`, and also every value of each boolean and enumerated option."""
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
        for choice in choices:
            text = ", ".join(f"{name}={value}" for name, value in choice.items()) or "defaults"
            options = validate_options(self.method, choice)
            try:
                yield text, self.fit(case, options)
            except SkipLayer as reason:
                require(bool(str(reason)), f"{text}: the SkipLayer has no reason")

    def finest(self, case: Case = REFERENCE) -> Any:
        """The last rung of the ladder, fitted."""
        rungs = list(self.rungs(case))
        require(bool(rungs), f"no rung of the ladder fits a {case.name} matrix")
        return rungs[-1][1]

    def compress(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE
    ) -> tuple[MethodCode, Tensor] | None:
        """A code and the matrix that it decodes to; None if the method skips the matrix.

        Both are copies, so a rule that writes into them does not affect the others.
        """
        key = (case, repr(options), matrix.numpy().tobytes())
        if key not in self.results:
            self.results[key] = self._compress(matrix, options, case)
        return copy.deepcopy(self.results[key])

    def _compress(
        self, matrix: Tensor, options: Any, case: Case
    ) -> tuple[MethodCode, Tensor] | None:
        try:
            compressed = self.quantize(matrix, options, case)
        except SkipLayer as reason:
            require(bool(str(reason)), f"{case.name}: the SkipLayer has no reason")
            return None
        return compressed, decode(compressed, self.plugins)

    def context(
        self, case: Case, seed: int = 0, device: torch.device | None = None
    ) -> LayerContext:
        """The context that the core would give the method for a case."""
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
        """The ladder that it declares."""
        return self.quantizer.ladder

    @property
    def entry(self) -> Registered[Quantizer]:
        """Its entry in the registry."""
        return self.plugins.quantizers.get(self.quantizer.name)

    def fit(self, case: Case, options: Any) -> Any:
        """Let the quantizer fit the options."""
        return self.quantizer.fit(*case.matrix_shape, options, self.notes.append)

    def quantize(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE, seed: int = 0
    ) -> MethodCode:
        """Call the quantizer."""
        context = self.context(case, seed, matrix.device)
        return quantize_matrix(self.plugins, self.entry, matrix, options, context)


@dataclass(frozen=True)
class TransformSubject(Subject):
    """A transform under test, with 8-bit rounding behind it wherever a code is needed."""

    transform: Transform
    trial_options: Sequence[Mapping[str, Any]]

    @property
    def method(self) -> Method:
        """The transform."""
        return self.transform

    @property
    def ladder(self) -> Sequence[Mapping[str, Any]]:
        """The options to test it with."""
        return self.trial_options

    @property
    def entry(self) -> Registered[Transform]:
        """Its entry in the registry."""
        return self.plugins.transforms.get(self.transform.name)

    def fit(self, case: Case, options: Any) -> Any:
        """Return the options unchanged: transforms do not fit them."""
        return options

    def forward(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE, seed: int = 0
    ) -> tuple[Tensor, Code] | None:
        """The transformed matrix and its Code, checked by the core; None if it skips the matrix."""
        context = self.context(case, seed, matrix.device)
        try:
            return transform_matrix(self.entry, matrix, options, context)
        except SkipLayer as reason:
            require(bool(str(reason)), f"{case.name}: the SkipLayer has no reason")
            return None

    def quantize(
        self, matrix: Tensor, options: Any, case: Case = REFERENCE, seed: int = 0
    ) -> MethodCode:
        """The code of the transform, with the transformed matrix rounded to 8 bits as the child."""
        context = self.context(case, seed, matrix.device)
        transformed, code = transform_matrix(self.entry, matrix, options, context)
        return wrap(self.plugins, self.entry, code, self.rounded(transformed, case), context)

    def rounded(self, matrix: Tensor, case: Case = REFERENCE) -> MethodCode:
        """Round a matrix of any shape to 8 bits."""
        rounding = self.plugins.quantizers.get(Rounding.name)
        context = self.context(case, device=matrix.device)
        return quantize_matrix(self.plugins, rounding, matrix, Options(), context)


def subject_of(
    quantizer: Quantizer | type[Quantizer], results: Results | None = None
) -> QuantizerSubject:
    """Register a quantizer among the installed plugins, in place of any of the same name.

    Args:
        quantizer: the class, or an instance.
        results: the results that the subjects of one check share; none by default.
    """
    instance = quantizer() if isinstance(quantizer, type) else quantizer
    shared = {} if results is None else results
    return QuantizerSubject(_plugins_with(quantizers=[instance]), instance, results=shared)


def transform_subject_of(
    transform: Transform | type[Transform],
    trial_options: Sequence[Mapping[str, Any]],
    results: Results | None = None,
) -> TransformSubject:
    """Register a transform among the installed plugins, in place of any of the same name.

    Args:
        transform: the class, or an instance.
        trial_options: options to try it with.
        results: the results that the subjects of one check share; none by default.
    """
    instance = transform() if isinstance(transform, type) else transform
    plugins = _plugins_with(transforms=[instance], quantizers=[Rounding()])
    shared = {} if results is None else results
    return TransformSubject(plugins, instance, trial_options or ({},), results=shared)


def _plugins_with(**added: Sequence[Any]) -> Plugins:
    """The installed plugins with items added by registry, in place of others of their names."""
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
