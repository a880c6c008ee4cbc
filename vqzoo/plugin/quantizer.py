"""The contract of a quantizer, and the choice of options for a wanted ratio."""

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
        ladder: options from coarse to fine, as a user would give them: each rung stores more and
            errs less than the one before. What the conformance kit tries; the defaults alone
            unless a method says more.
        calibrated: whether `quantize` weighs errors by `context.inputs`. Who calibrates is told of
            methods that do not declare it.
    """

    ladder: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    calibrated: ClassVar[bool] = False

    @abstractmethod
    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        """Compress one matrix.

        Args:
            weight: float32, (m, n), finite, contiguous; it must not be changed. A Linear's
                (out, in); a convolution's (out, in/groups·kernel).
            options: an instance of `self.Options`, already fitted to the shape by `fit`.
            context: the layer at hand.

        Raises:
            SkipLayer: this layer cannot be compressed; the message says why.
        """

    def fit(self, m: int, n: int, options: Any, note: Callable[[str], None]) -> Any:
        """Clamp options that cannot fit an m × n matrix, and say so through `note`.

        Raises:
            SkipLayer: no value of an option would do.
        """
        return options

    def candidates(self, m: int, n: int) -> Iterable[Any]:
        """Options worth considering for an m × n matrix when the user asks for a ratio.

        Empty (the default): the method cannot be steered by `--ratio`.
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
        """Expected squared error over the squared norm, used only to compare candidates."""
        raise NotImplementedError(f"{self.name} offers candidates but does not rank them")

    def options_for(self, m: int, n: int, ratio: float, given: Mapping[str, Any]) -> Any | None:
        """The options of smallest expected error whose stored size reaches `ratio`.

        The ratio is 32·m·n bits over all stored bits, codebooks and scales counted. Where no
        options reach it, those that come closest (the core tells the user); None where the method
        has no candidates for this shape, or none that go with `given`.

        Args:
            given: options that the user fixed; they override the candidates'.
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
        """What to compress with and fine-tune first, where the network is fine-tuned at all.

        Each stage is a registered method and its options; the next one starts from the decoded,
        fine-tuned weights. This method comes last ("prune, retrain, then share and retrain").
        """
        return ()

    def paper_bits(self, m: int, n: int, options: Any) -> float | None:
        """Bits by the source's own formula (32-bit floats, log2 k bits a code), if it has one."""
        return None


def _silent(text: str) -> None:
    """Candidates are fitted before one is chosen: what was clamped is of no interest yet."""
