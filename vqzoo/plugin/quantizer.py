"""The contract of a quantizer, and the choice of options for a target ratio."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar

from pydantic import ValidationError
from torch import Tensor

from vqzoo.plugin.code import Code, stored_bits
from vqzoo.plugin.method import LayerContext, Method


class Quantizer(Method):
    """Turns a weight matrix into a Code. Pure: the same input and seed give the same Code.

    Attributes:
        ladder: options from coarse to fine, as a user would give them; each rung stores more and
            errs less than the one before. The conformance kit tries every rung. The default is
            one rung, the default options.
        calibrated: whether `quantize` weights errors by `context.inputs`.
        second_order: whether `quantize` uses `context.second_order`. A calibrated run then gathers
            that in the place of `context.inputs`, and names the methods that declare neither.
        price_option: the name of an option, a float, that is the price of a bit in squared logits
            (lambda): `quantize` then minimizes ½ Σ_i g_i e_i H e_iᵀ + price · bits, see
            `SecondOrder`. Runs under a budget set it to the same value in all layers. It must take
            every value from 1e-15 to 1e6, and store no more at a higher one. None for methods that
            know no such price.
    """

    ladder: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    price_option: ClassVar[str | None] = None
    calibrated: ClassVar[bool] = False
    second_order: ClassVar[bool] = False

    @abstractmethod
    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        """Compress one matrix.

        Args:
            weight: float32, (m, n), finite, contiguous; it must not be changed. (m, n) is
                (out, in) of a Linear, (out, in/groups·kernel) of a convolution; see
                `LayerInfo.matrix_shape`.
            options: an instance of `self.Options`, already fitted to the shape by `fit`.
            context: the layer at hand.

        Returns:
            A code of shape (m, n).

        Raises:
            SkipLayer: this layer cannot be compressed; the message says why.
        """

    def fit(self, m: int, n: int, options: Any, note: Callable[[str], None]) -> Any:
        """Clamp options that are out of range for an m × n matrix.

        Args:
            m: rows of the matrix.
            n: columns of the matrix.
            options: an instance of `self.Options`.
            note: takes one line about each option that was changed.

        Returns:
            An instance of `self.Options`; fitting it again changes nothing.

        Raises:
            SkipLayer: no value of an option fits this shape.
        """
        return options

    def candidates(self, m: int, n: int) -> Iterable[Any]:
        """Options to choose from for an m × n matrix when the user gives a target ratio.

        Without candidates, the default, the method does not support `--ratio`.
        """
        return ()

    def stored_bits(self, m: int, n: int, options: Any) -> int:
        """Bits that `quantize` will store with these options, to the byte: those of `layout`.

        Override it only where the layout is not known but its size is.

        Raises:
            NotImplementedError: as `layout`.
        """
        return stored_bits(self.layout(m, n, options))

    def layout(self, m: int, n: int, options: Any) -> Code:
        """The Code that `quantize` will give with these options, its tensors on the meta device:
        names, shapes, dtypes, cardinalities and facts. Sizes are computed from it.

        Raises:
            NotImplementedError: the method cannot say so beforehand, or not with these options.
        """
        raise NotImplementedError(f"{self.name} does not say beforehand what it will store")

    def expected_error(self, m: int, n: int, options: Any) -> float:
        """Expected squared error divided by the squared norm; it only ranks candidates.

        Raises:
            NotImplementedError: by default; a method with candidates must override this.
        """
        raise NotImplementedError(f"{self.name} has candidates but no expected_error")

    def options_for(self, m: int, n: int, ratio: float, given: Mapping[str, Any]) -> Any | None:
        """Choose the candidate of smallest expected error whose stored size reaches a ratio.

        Args:
            m: rows of the matrix.
            n: columns of the matrix.
            ratio: 32·m·n bits divided by all stored bits, codebooks and scales included.
            given: options that the user fixed; they override those of the candidates.

        Returns:
            Options, fitted to the shape; those that come closest if none reach the ratio (the core
            tells the user). None if the method has no candidates for this shape, or none that are
            compatible with `given`.
        """
        candidates: dict[Any, None] = {}
        for candidate in self.candidates(m, n):
            try:
                fixed = {**candidate.model_dump(), **given}
                options = self.Options(**fixed) if given else candidate
            except ValidationError:
                continue  # at odds with what the user fixed
            candidates[self.fit(m, n, options, _silent)] = None
        error_first = ((self.expected_error(m, n, options), options) for options in candidates)
        ranked = sorted(error_first, key=itemgetter(0))
        too_large: list[tuple[int, Any]] = []
        for _, equals in groupby(ranked, key=itemgetter(0)):  # sizes only down to the first to fit
            sized = [(self.stored_bits(m, n, options), options) for _, options in equals]
            bits, smallest = min(sized, key=itemgetter(0))
            if bits * ratio <= 32 * m * n:
                return smallest
            too_large += sized
        return min(too_large, key=itemgetter(0), default=(0, None))[1]

    def stages(self, options: Any) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Earlier stages of a run that fine-tunes ("prune, retrain, then share and retrain").

        Each stage compresses with a registered method and its options, and fine-tunes; the next
        one starts from the decoded, fine-tuned weights. This method is the last stage.

        Returns:
            (name of the method, options) of each earlier stage, in order; none by default.
        """
        return ()

    def paper_bits(self, m: int, n: int, options: Any) -> float | None:
        """Size in bits by the source's own formula (32-bit floats, log2 k bits per code).

        Returns:
            A positive number of bits; None, the default, if the source gives no formula.
        """
        return None


def _silent(text: str) -> None:
    """Drop notes on candidates: they matter only for the one that is chosen."""
