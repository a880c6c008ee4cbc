"""The conformance kit detects every way of breaking the contract, and names the rule."""

import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from broken_rules import broken_rules
from pydantic import ConfigDict, Field
from torch import Tensor

from vqzoo.plugin import (
    Code,
    Floats,
    Indices,
    LayerContext,
    MethodCode,
    Options,
    Quantizer,
    index_bits,
)
from vqzoo.testing import check_quantizer
from vqzoo.testing.broken import check_rules
from vqzoo.testing.quantizer import QUANTIZER_RULES
from vqzoo.testing.subject import subject_of


class GridOptions(Options):
    k: int = Field(16, ge=2, le=256, description="levels")


class Grid(Quantizer):
    """k equidistant levels between the smallest and the largest weight. It keeps the contract."""

    name = "grid"
    summary = "equidistant levels"
    Options = GridOptions
    ladder = ({"k": 4}, {"k": 64})

    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        """Round each weight to the nearest level."""
        levels = self.levels(weight, options.k, context)
        book = Floats.of(levels, "float32")
        codes = (weight[..., None] - book.values).abs().argmin(-1)
        return Code(
            (weight.shape[0], weight.shape[1]),
            {"codes": Indices(codes, options.k), "book": book},
        )

    def levels(self, weight: Tensor, k: int, context: LayerContext) -> Tensor:
        """The levels, (k,)."""
        low, high = weight.min(), weight.max()
        return low + (high - low) * torch.arange(k, device=weight.device) / (k - 1)

    def check(self, code: Code) -> None:
        """Require one code per weight, and one level per symbol."""
        code.require_floats("book", (code.require_indices("codes", code.shape).cardinality,))

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Look the levels up."""
        return params["book"][code.indices("codes").long()]

    def candidates(self, m: int, n: int) -> Iterable[Any]:
        """Powers of two, from 2 to 256 levels."""
        return [GridOptions(k=2**bits) for bits in range(1, 9)]

    def stored_bits(self, m: int, n: int, options: Any) -> int:
        """Bits of the codes and the levels."""
        return 8 * -(-m * n * index_bits(options.k) // 8) + 32 * options.k

    def expected_error(self, m: int, n: int, options: Any) -> float:
        """The error falls to a quarter with each bit."""
        return 1 / options.k**2


def test_a_sound_quantizer_passes() -> None:
    check_quantizer(Grid)
    check_quantizer(Grid())


class NoSummary(Grid):
    summary = ""


class Undescribed(Grid):
    class Options(GridOptions):
        k: int = 16


class ListOption(Grid):
    class Options(GridOptions):
        stops: list[int] = Field([1, 2], description="not a scalar")


class Lenient(Grid):
    class Options(GridOptions):
        model_config = ConfigDict(extra="ignore")


class ClampsInSilence(Grid):
    def fit(self, m: int, n: int, options: Any, note: Any) -> Any:
        return options.model_copy(update={"k": max(2, min(options.k, m * n))})


class NeverFits(Grid):
    def fit(self, m: int, n: int, options: Any, note: Any) -> Any:
        note("one less")
        return options.model_copy(update={"k": max(2, options.k - 1)})


class NegativePaper(Grid):
    def paper_bits(self, m: int, n: int, options: Any) -> float:
        return -1.0


class CrashesOnOneColumn(Grid):
    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        weight[0, 1]
        return super().quantize(weight, options, context)


class OverflowsOnHuge(Grid):
    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        power = weight.square().mean()
        return super().quantize(weight * power / power, options, context)


class WritesInput(Grid):
    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        return super().quantize(weight.clamp_(-2, 2), options, context)


class Forgetful(Grid):
    def levels(self, weight: Tensor, k: int, context: LayerContext) -> Tensor:
        return super().levels(weight, k, context) + 1e-3 * torch.rand(k)


class GlobalDice(Grid):
    def levels(self, weight: Tensor, k: int, context: LayerContext) -> Tensor:
        random.random()
        return super().levels(weight, k, context)


class OutOfRange(Grid):
    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        code = super().quantize(weight, options, context)
        codes = Indices(code.indices("codes") + 1, options.k)
        return Code(code.shape, {**code.parts, "codes": codes})


class OtherDecode(Grid):
    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        matrix = super().decode(code, params) * 1.001
        return matrix if out is None else out.copy_(matrix)


class IgnoresOut(Grid):
    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        matrix = super().decode(code, params)
        return matrix if out is None else out


class Aliased(Grid):
    cache: dict[int, Tensor] = {}  # noqa: RUF012

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        key = id(code)
        if params["book"].requires_grad or code.shape != (64, 48):
            return super().reconstruct(code, params)
        self.cache[key] = self.cache.get(key, super().reconstruct(code, params))
        return self.cache[key]


class Detached(Grid):
    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        return super().reconstruct(code, {"book": params["book"].detach()})


class WrongGradient(Grid):
    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        book = params["book"]
        return super().reconstruct(code, {"book": 2 * book - book.detach()})


class OtherApply(Grid):
    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return 1.001 * super().apply(code, params, x)


class OtherMultiply(Grid):
    def multiply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return 1.001 * x @ self.decode(code, params).T


class DetachedApply(Grid):
    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        detached = {name: tensor.detach() for name, tensor in params.items()}
        return super().apply(code, detached, x)


class Miscounts(Grid):
    def stored_bits(self, m: int, n: int, options: Any) -> int:
        return super().stored_bits(m, n, options) - 8


class OtherLayout(Grid):
    def layout(self, m: int, n: int, options: Any) -> Code:
        return Code((m, n), {"codes": Indices.layout(options.k, m, n)})


class NoRatio(Grid):
    def options_for(self, m: int, n: int, ratio: float, given: Mapping[str, Any]) -> Any:
        return GridOptions(k=256)


class DownTheLadder(Grid):
    ladder = ({"k": 64}, {"k": 4})


class Useless(Grid):
    def levels(self, weight: Tensor, k: int, context: LayerContext) -> Tensor:
        return torch.full((k,), 1e3)


class FirstRows(Grid):
    def row_step(self, code: Code) -> int:
        return 1

    def rows(self, code: Code, start: int, stop: int) -> Code:
        return code.narrow(0, stop - start, codes=0)


class NoPrice(Grid):
    price_option = "k"


class UselessPrice(Grid):
    class Options(GridOptions):
        price: float = Field(1e-6, gt=0, description="the price of a bit, ignored")

    price_option = "price"


class Picky(Grid):
    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        from vqzoo.plugin import SkipLayer

        raise SkipLayer("not today")


class UncheckedShape(Grid):
    def check(self, code: Code) -> None:
        """Accept anything."""

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """Skip the check of the shape that the inherited method makes."""
        return self.reconstruct(code, params)


class Remembers(Grid):
    """Decodes from memory what it compressed itself, which no other process can."""

    def __init__(self) -> None:
        self._seen: list[tuple[Mapping[str, Any], Tensor]] = []

    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        code = super().quantize(weight, options, context)
        self._seen.append((code.facts, weight.clone()))
        return code

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        for facts, weight in self._seen:
            if facts is code.facts:
                return weight
        return super().reconstruct(code, params)


BROKEN = {
    NoSummary: "it describes itself: its summary is empty",
    Undescribed: "it describes itself: option k has no Field",
    ListOption: "options can be given as text: option stops is a list",
    Lenient: "unknown options are refused: ",
    ClampsInSilence: "fit notes what it clamps and is idempotent: 1 × 1: GridOptions(k=4) was",
    NeverFits: "fit notes what it clamps and is idempotent: 1 × 1: fitting GridOptions(k=3) again",
    NegativePaper: "paper bits are positive: k=4: paper_bits is -1.0",
    CrashesOnOneColumn: "every shape is compressed or skipped: PluginError: grid (plugin under",
    OverflowsOnHuge: "every value is compressed or skipped: PluginError: grid (plugin under-test)",
    WritesInput: "the input is not modified: k=4",
    Forgetful: "the same seed gives the same code: k=4",
    GlobalDice: "global random state is not used: it drew from Python's generator",
    OutOfRange: "ordinary weights are not skipped: PluginError: grid (plugin under-test) on layer",
    OtherDecode: "reconstruct equals decode: 1 × 1, k=4: reconstruct and decode differ by up to",
    IgnoresOut: "decode writes into out: 1 × 1, k=4: out holds another matrix",
    FirstRows: "rows decode to rows of the matrix: ",
    Aliased: "decoding does not modify the code: k=4: the second decoding gives another matrix",
    Detached: "reconstruct is differentiable: k=4: the result does not depend on part book",
    WrongGradient: "reconstruct is differentiable: k=4: part book has gradient",
    OtherApply: "apply equals decode then matmul: 1 × 1, k=4, x of shape (1,): off by",
    OtherMultiply: "apply equals decode then matmul: 1 × 1, k=4, x of shape (1,): off by",
    DetachedApply: "apply is differentiable: k=4: the gradient of book is off by",
    Miscounts: "stored bits are exact: 1 × 1, k=4: stored_bits is 128, but 136 bits are stored",
    OtherLayout: "layout matches the code: 1 × 1, k=4: layout gives (1, 1) {'codes': ('4', 1, 1)}",
    NoRatio: "the requested ratio is reached: 64 × 48, ratio 4: GridOptions(k=256) stores 32768",
    Remembers: "an artifact preserves the code: ",
    DownTheLadder: "the ladder goes from coarse to fine: k=4 stores less",
    Useless: "decoding beats a zero matrix: k=64: relative squared error",
    NoPrice: "every price is taken: k=1e-15: grid: option k=1e-15: ",
    UselessPrice: "every price is taken: price changes nothing",
    Picky: "ordinary weights are not skipped: k=4: the method skipped it",
    UncheckedShape: "damaged codes are refused: k=4: part 'codes' cut along dimension 0",
}


@pytest.mark.parametrize("quantizer", BROKEN, ids=lambda quantizer: quantizer.__name__)
def test_a_broken_quantizer_is_reported_with_the_rule(quantizer: type[Quantizer]) -> None:
    name = BROKEN[quantizer].partition(":")[0]
    (rule,) = [rule for rule in QUANTIZER_RULES if rule.__name__ == name.replace(" ", "_")]
    with pytest.raises(ExceptionGroup) as caught:
        check_rules(quantizer.__name__, [rule], lambda: subject_of(quantizer))
    (report,) = broken_rules(caught)
    assert report.startswith(BROKEN[quantizer])
    assert "\nThe rule: " in report


def test_every_rule_can_be_broken() -> None:
    """Except those that the core itself ensures, and the one that needs a GPU."""
    shown = {text.partition(":")[0].replace(" ", "_") for text in BROKEN.values()}
    core = {"empty_and_nonfinite_matrices_are_refused", "stored_bytes_match_the_counted_bits"}
    others = core | {"cpu_and_gpu_agree"}
    assert shown | others == {rule.__name__ for rule in QUANTIZER_RULES}


def test_all_broken_rules_are_reported_together_with_their_causes() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        check_quantizer(CrashesOnOneColumn)
    assert "CrashesOnOneColumn breaks" in str(caught.value)
    assert len(broken_rules(caught)) > 3
    causes = [violation.__cause__ for violation in caught.value.exceptions]
    assert any(cause is not None and isinstance(cause.__cause__, IndexError) for cause in causes)


class Composite(Grid):
    """A quantizer whose code holds that of another method as a child."""

    name = "composite"

    def quantize(self, weight: Tensor, options: Any, context: LayerContext) -> Code:
        child: MethodCode = context.quantize("rtn", weight, {"format": "int4"})
        return Code((weight.shape[0], weight.shape[1]), {}, {}, {"inner": child})

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        return params["inner"]

    def check(self, code: Code) -> None:
        if code.children["inner"].code.shape != code.shape:
            raise ValueError("the child has another shape")

    def candidates(self, m: int, n: int) -> Iterable[Any]:
        return ()

    ladder = ({},)


def test_a_method_with_children_passes() -> None:
    check_quantizer(Composite)
