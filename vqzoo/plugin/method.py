"""The common base of quantizers and transforms: a name, validated options, and decoding."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.plugin.code import Code, MethodCode
from vqzoo.plugin.formats.weight_form import WeightForm
from vqzoo.plugin.second_order import SecondOrder


class Options(BaseModel):
    """Base of every method's options, a frozen pydantic model that refuses unknown names.

    The command line sets fields by `-o name=value`. Give each a `Field(description=...)` and
    bounds; its type must be bool, int, float, str, a `Literal` of them, or one of these or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SkipLayer(Exception):
    """Raised by a method that cannot compress a layer: the layer stays dense, for this reason."""


@dataclass(frozen=True)
class LayerContext:
    """The layer that a method is compressing.

    Attributes:
        layer: module path, "classifier.1".
        kind: "linear", "conv1d" to "conv3d", "conv_transpose1d" to "conv_transpose3d",
            "embedding" or "attention" (the input projections of nn.MultiheadAttention).
        shape: shape of the weight before it was viewed as a matrix.
        groups: groups of a convolution, 1 otherwise.
        seed: seed for this layer; it follows from the run's seed and the layer's name.
        device: where to compute.
        note: shows the user one line, for instance about an option that was clamped.
        progress: reports (done, total) steps of the work on this layer.
        quantize: compresses a matrix with another registered method, for `Code.children`:
            `quantize("pq", matrix, {"k": 16})`.
        inputs: a sample of the layer's inputs on calibration data, float32, (r, n); None without
            calibration. Its rows are drawn from the vectors that the layer multiplies by its
            matrix, equally from each group of a convolution. Their second moment is
            `inputs.T @ inputs / r`.
        second_order: what errors of the layer's weights do to the network's logits, for methods
            that declare `second_order`; None without calibration, where H = I and g = 1 is the
            best guess.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    groups: int
    seed: int
    device: torch.device
    note: Callable[[str], None]
    progress: Callable[[int, int], None]
    quantize: Callable[[str, Tensor, Mapping[str, Any]], MethodCode]
    inputs: Tensor | None = None
    second_order: SecondOrder | None = None


class Method(ABC):
    """Base of `Quantizer` and `Transform`.

    Attributes:
        name: what users type and artifacts record, of a-z, 0-9, - and _.
        version: of the form in which codes are stored; raise it when older readers would misread
            them.
        earlier: versions that the method still decodes. Artifacts of any other are refused by name.
        summary: one line for `vqzoo methods`.
        source: the paper and equation.
        packing: the name of the packing that the method's codes are made for; runs that name none
            use it.
        multiply_devices: torch's types of the devices on which `multiply` works.
        Options: the class of the method's options.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    earlier: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    packing: ClassVar[str] = "bits"
    multiply_devices: ClassVar[tuple[str, ...]] = ("cpu",)
    Options: ClassVar[type[Options]] = Options

    @abstractmethod
    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Rebuild the matrix with differentiable torch operations.

        Args:
            code: a code from `quantize` or `forward`.
            params: every float part as float32, by name, and every child's rebuilt matrix under
                the child's name. They may require gradients, and training may have changed them.

        Returns:
            float32 tensor of shape `code.shape`.
        """

    def check(self, code: Code) -> None:  # noqa: B027 - most methods need no more than the core's
        """Refuse a code that `quantize` or `forward` would not produce, before it is decoded.

        A stored code may come from an untrusted file. The core has checked that codes are below
        their cardinality and floats are finite; it cannot know which shapes and facts belong
        together, and parts that are broadcast or expanded could exhaust memory. See
        `Code.require_indices`, `Code.require_floats` and `Code.require_fact`.

        Raises:
            ValueError: parts or facts are missing or do not fit `code.shape`.
        """

    def version_of(self, code: Code) -> str:
        """The version that a reader needs for this code: `version`, or one of `earlier` if the code
        has nothing that is new since then.

        Args:
            code: a code that has passed `check`.
        """
        return self.version

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """Rebuild the matrix without gradients: the fast path of `reconstruct`.

        Args:
            code: a code that has passed `check`.
            params: as for `reconstruct`.
            out: float32, contiguous, of shape `code.shape`; if given, the result is written there.

        Returns:
            float32 tensor of shape `code.shape`.

        Raises:
            ValueError: `reconstruct` returned another shape.
        """
        with torch.no_grad():
            matrix = self.reconstruct(code, params)
        if matrix.shape != code.shape:
            raise ValueError(f"{self.name} rebuilt {tuple(matrix.shape)}, not {code.shape}")
        return matrix if out is None else out.copy_(matrix)

    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Multiply by the matrix, x·Wᵀ, in a network that runs from its codes.

        Override it if the product is cheaper than rebuilding the matrix, as with thin factors. It
        must agree with `reconstruct` and be differentiable in `params` and `x`.

        Args:
            code: a code from `quantize` or `forward`.
            params: as for `reconstruct`.
            x: float32, (..., n).

        Returns:
            float32, (..., m).
        """
        return x @ self.reconstruct(code, params).T

    @property
    def applies(self) -> bool:
        """Whether the method overrides `apply`."""
        return type(self).apply is not Method.apply

    def form(self, code: Code) -> WeightForm | None:
        """What the matrix is, for runtimes that decode tables or multiply by factors themselves.

        Args:
            code: a code that has passed `check`.

        Returns:
            The form, with the values of `reconstruct` up to rounding; None if the code has none of
            these forms.
        """
        return None

    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
        """Multiply by the matrix without gradients, x·Wᵀ: what `decode` is to `reconstruct`.

        Override it if codes can be multiplied by without rebuilding the whole matrix. Networks that
        run from codes call it for plain Linear layers with frozen `params` and with indices in
        their codes, on the devices of `multiply_devices`.

        Args:
            code: a code that has passed `check`.
            params: as for `reconstruct`.
            x: float32, contiguous, (r, n), on the device of the code.

        Returns:
            float32, (r, m); None, the default, to have the matrix decoded instead.
        """
        return None

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor | None:
        """Multiply many columns by the matrix without gradients, W·X.

        Override it if that is faster than to decode some rows of the matrix after the other and
        multiply by them. Networks that run from codes call it on the CPU, for convolutions with few
        output positions and for Linear layers whose product `multiply` leaves.

        Args:
            code: a code that has passed `check`.
            params: as for `reconstruct`.
            panels: X, (n, count) float32, in the order in which kernels read it.

        Returns:
            float32, (m, count); None, the default, to have rows of the matrix decoded.
        """
        return None

    @property
    def multiplies_by_columns(self) -> bool:
        """Whether the method overrides `multiply_by_columns`."""
        return type(self).multiply_by_columns is not Method.multiply_by_columns

    def packing_axis(self, code: Code) -> int:
        """The axis along which codes of up to four bits share bytes in a network that runs from
        codes: -1, the last one, by default. Rows should lie along another one."""
        return -1

    def row_step(self, code: Code) -> int:
        """Whether some rows of the matrix can be decoded alone, and which.

        Args:
            code: a code that has passed `check`, without children.

        Returns:
            The number of rows whose multiples `rows` can begin and end at; 0, the default, if only
            the whole matrix can be decoded.
        """
        return 0

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """The code of some rows, for networks that run from codes and decode a few rows at a time.

        Override it together with `row_step`. See `Code.narrow`.

        Args:
            code: a code that has passed `check`; training may have changed its floats.
            start: the first row, a multiple of `row_step`.
            stop: the row behind the last one, a multiple of `row_step` or the number of rows.

        Returns:
            A code of shape (stop - start, n), in the same memory as far as possible, that `decode`
            decodes to these rows of the matrix up to rounding.
        """
        raise NotImplementedError(f"{self.name} decodes the whole matrix only")

    @property
    def multiplies(self) -> bool:
        """Whether the method overrides `multiply`."""
        return type(self).multiply is not Method.multiply

    def reassign(
        self,
        code: Code,
        params: Mapping[str, Tensor],
        gradient: Tensor,
        curvature: Tensor,
        share: float,
    ) -> Code | None:
        """Give a few codes other values, so that the loss of the network falls.

        Override it if codes can change one by one: recovery then moves them, too (PV-tuning,
        Malinovskii et al. 2024, arXiv 2405.14852). Near its values, the loss changes by about
        Σ_ij G_ij δ_ij + ½ h_ij δ_ij² where the matrix changes by δ.

        Args:
            code: a code that has passed `check`.
            params: as for `reconstruct`; without gradients.
            gradient: G, (m, n) float32.
            curvature: h, (m, n) float32, positive.
            share: of the codes, that may change at most: those that promise most.

        Returns:
            The code with other integers, and nothing else changed; None, the default, if no change
            promises to lower the loss.
        """
        return None

    @property
    def reassigns(self) -> bool:
        """Whether the method overrides `reassign`."""
        return type(self).reassign is not Method.reassign

    def trainable(self, code: Code) -> dict[str, Tensor]:
        """The parts that fine-tuning may change, float32, by name: all float parts by default."""
        return code.floats()
