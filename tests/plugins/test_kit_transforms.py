"""The conformance kit detects every way in which a transform can break the contract."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ConfigDict, Field
from torch import Tensor

import vqzoo
from vqzoo.plugin import Code, Floats, Indices, LayerContext, Options, SkipLayer, Transform
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.testing import ContractBroken, check_transform
from vqzoo.testing.broken import check_rules
from vqzoo.testing.subject import transform_subject_of
from vqzoo.testing.transform import TRANSFORM_RULES

EXAMPLES = Path(vqzoo.__file__).parents[1] / "docs" / "examples"


class PeakOptions(Options):
    floor: float = Field(1e-30, gt=0, description="the smallest peak")


class Peaks(Transform):
    """Columns divided by their largest magnitude. It keeps the contract."""

    name = "peaks"
    summary = "columns divided by their largest magnitude"
    Options = PeakOptions

    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        """Divide by the stored values."""
        peaks = Floats(weight.abs().amax(dim=0).clamp(min=options.floor))
        order = Indices(torch.arange(weight.shape[1], device=weight.device), weight.shape[1])
        shape = (weight.shape[0], weight.shape[1])
        return weight / peaks.values, Code(shape, {"peaks": peaks, "order": order})

    def check(self, code: Code) -> None:
        """Require one peak per column."""
        n = code.shape[1]
        if code.require_indices("order", (n,)).cardinality != n:
            raise ValueError("other columns")
        code.require_floats("peaks", (n,))

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """Multiply by the peaks."""
        return params["weight"] * params["peaks"][code.indices("order").long()]


class NoSummary(Peaks):
    summary = ""


class ListOption(Peaks):
    class Options(PeakOptions):
        stops: list[int] = Field([1, 2], description="not a scalar")


class Lenient(Peaks):
    class Options(PeakOptions):
        model_config = ConfigDict(extra="ignore")


class Lossy(Peaks):
    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        changed, code = super().forward(weight, options, context)
        rounded = Floats.of(code.floats()["peaks"])
        return changed, Code(code.shape, {**code.parts, "peaks": rounded})


class Picky(Peaks):
    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        raise SkipLayer("not today")


class CrashesOnOneColumn(Peaks):
    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        weight[0, 1]
        return super().forward(weight, options, context)


class OverflowsOnHuge(Peaks):
    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        power = weight.square().mean()
        return super().forward(weight * power / power, options, context)


class WritesInput(Peaks):
    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        return super().forward(weight.clamp_(-2, 2), options, context)


class Forgetful(Peaks):
    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        return super().forward(weight + 1e-3 * torch.rand(1), options, context)


class GlobalDice(Peaks):
    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        random.random()
        return super().forward(weight, options, context)


class OtherDecode(Peaks):
    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        matrix = super().decode(code, params) * 1.001
        return matrix if out is None else out.copy_(matrix)


class IgnoresOut(Peaks):
    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        matrix = super().decode(code, params)
        return matrix if out is None else out


class WritesParams(Peaks):
    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        params["peaks"].mul_(1.01)
        return super().decode(code, params, out)


class Detached(Peaks):
    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        return super().reconstruct(code, {**params, "weight": params["weight"].detach()})


class OtherApply(Peaks):
    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return x @ params["weight"].T


class DetachedApply(Peaks):
    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return super().apply(code, params, x.detach())


class Remembers(Peaks):
    """Remembers what it transformed itself; another process would reconstruct another matrix."""

    def __init__(self) -> None:
        self._seen: list[Mapping[str, Any]] = []

    def forward(self, weight: Tensor, options: Any, context: LayerContext) -> tuple[Tensor, Code]:
        matrix, code = super().forward(weight, options, context)
        self._seen.append(code.facts)
        return matrix, code

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        known = any(facts is code.facts for facts in self._seen)
        return super().reconstruct(code, params) * (1 if known else 2)


class Amplifies(Peaks):
    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        return 3 * super().reconstruct(code, params)


class Trusting(Peaks):
    def check(self, code: Code) -> None:
        """Accept anything."""

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """Skip the check of the shape that the inherited method makes."""
        return self.reconstruct(code, params)

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        return params["weight"] * params["peaks"].amax() + 0 * code.indices("order").sum()


class Broadcasts(Trusting):
    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        return params["weight"] * params["peaks"]


BROKEN = {
    NoSummary: "it describes itself: its summary is empty",
    ListOption: "options can be given as text: option stops is a list",
    Lenient: "unknown options are refused: ",
    Lossy: "reconstruct inverts forward: 1 × 1, defaults: off by",
    Picky: "ordinary weights are not skipped: defaults: the method skipped it",
    CrashesOnOneColumn: "every shape is compressed or skipped: PluginError: peaks (plugin under",
    OverflowsOnHuge: "every value is compressed or skipped: PluginError: the matrix that peaks",
    WritesInput: "the input is not modified: defaults",
    Forgetful: "the same seed gives the same code: defaults",
    GlobalDice: "global random state is not used: it drew from Python's generator",
    OtherDecode: "reconstruct equals decode: 1 × 1, defaults: reconstruct and decode differ by",
    IgnoresOut: "decode writes into out: 1 × 1, defaults: out holds another matrix",
    WritesParams: "decoding does not modify the code: defaults: the second decoding gives another",
    Detached: "reconstruct is differentiable: defaults: the result does not depend on part weight",
    OtherApply: "apply equals decode then matmul: 1 × 1, defaults, x of shape (1,): off by",
    DetachedApply: "apply is differentiable: defaults: the gradient of x is off by",
    Remembers: "an artifact preserves the code: ",
    Amplifies: "decoding beats a zero matrix: defaults: relative squared error",
    Broadcasts: "damaged codes are refused: defaults: part 'peaks' flattened and nested",
    Trusting: "children of the wrong shape are refused: defaults: a child that lost a row",
}


def test_a_correct_transform_passes() -> None:
    check_transform(Peaks, {}, {"floor": 0.1})


@pytest.mark.parametrize("transform", BROKEN, ids=lambda transform: transform.__name__)
def test_a_broken_transform_is_reported_with_the_rule(transform: type[Transform]) -> None:
    name = BROKEN[transform].partition(":")[0]
    (rule,) = [rule for rule in TRANSFORM_RULES if rule.__name__ == name.replace(" ", "_")]
    with pytest.raises(ExceptionGroup) as caught:
        check_rules(transform.__name__, [rule], lambda: transform_subject_of(transform, ()))
    (report,) = caught.value.exceptions
    assert isinstance(report, ContractBroken)
    assert str(report).startswith(BROKEN[transform])
    assert "\nThe rule: " in str(report)


def test_every_rule_can_be_broken() -> None:
    """Except those that the core itself ensures, that of rows, which are never asked of a method
    with a child, and the one that needs a GPU."""
    shown = {text.partition(":")[0].replace(" ", "_") for text in BROKEN.values()}
    core = {"empty_and_nonfinite_matrices_are_refused", "stored_bytes_match_the_counted_bits"}
    others = core | {"rows_decode_to_rows_of_the_matrix", "cpu_and_gpu_agree"}
    assert shown | others == {rule.__name__ for rule in TRANSFORM_RULES}


def test_all_broken_rules_are_reported_together() -> None:
    with pytest.raises(ExceptionGroup, match="CrashesOnOneColumn breaks") as caught:
        check_transform(CrashesOnOneColumn)
    assert len(caught.value.exceptions) > 3


def test_the_example_passes() -> None:
    with plugin_files([EXAMPLES / "row_peaks.py"]):
        example = installed_plugins().transforms.get("row-peaks").item
    check_transform(example, {}, {"power": 0.5}, {"power": 0})
