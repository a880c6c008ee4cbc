"""Weights of any size decode to finite values close to them, or stay dense for a reason."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vqzoo
from vqzoo.compression.measures.distortion import matrix_error
from vqzoo.errors import NothingCompressed, PluginError
from vqzoo.progress import SilentWatcher

METHODS: dict[str, dict[str, Any]] = {
    "binary": {},
    "deep-compression": {"density": 0.5, "bits": 3},
    "diba": {"k": 8},
    "ecq": {"price": 1e-3},
    "km": {"k": 8},
    "pq": {"d": 2, "k": 16},
    "prune": {"density": 0.4},
    "rq": {"d": 2, "k": 8},
    "rtn": {"format": "int4"},
    "svd": {"rank": 3},
}
UNSCALED = {"km": {"scale": "none"}, "pq": {"scale": "none"}, "rq": {"scale": "none"},
            "rtn": {"per": "tensor"}, "binary": {"scale": "tensor"},
            "diba": {"dtype": "float32"}, "svd": {"dtype": "float32"},
            "prune": {"then": "km:k=8"}, "deep-compression": {"init": "optimal"}}  # fmt: skip
VARIANTS = [*METHODS.items()] + [
    (name, METHODS[name] | options) for name, options in UNSCALED.items()
]


def matrix(seed: int) -> Tensor:
    weight = torch.randn(24, 20, generator=torch.Generator().manual_seed(seed))
    return weight / weight.abs().max()


def layer(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight = nn.Parameter(weight)
    return linear


@dataclass(frozen=True)
class Outcome:
    decoded: Tensor | None
    reason: str

    def error(self, weight: Tensor) -> float:
        """The relative error, by an independent computation in float64."""
        assert self.decoded is not None
        exact, scale = weight.double(), 2.0 ** -math.frexp(float(weight.abs().max()))[1]
        difference = (self.decoded.double() - exact) * scale
        return float(difference.norm() / (exact * scale).norm())


def compressed(weight: Tensor, method: str, options: dict[str, Any]) -> Outcome:
    try:
        small = vqzoo.compress(layer(weight), method, layers="all", **options)
    except NothingCompressed as error:
        return Outcome(None, str(error))
    return Outcome(small.module.get_parameter("weight"), "")


@pytest.mark.parametrize(("method", "options"), VARIANTS, ids=str)
@settings(max_examples=4, deadline=None)
@given(
    exponent=st.integers(-125, 126),
    seed=st.integers(0, 2),
    zeros=st.sampled_from([0, 1, 12]),
)
@example(exponent=126, seed=0, zeros=0)
@example(exponent=-125, seed=0, zeros=3)
def test_a_power_of_two_changes_nothing(
    method: str, options: dict[str, Any], exponent: int, seed: int, zeros: int
) -> None:
    weight = matrix(seed)
    weight[:zeros] = 0
    usual = compressed(weight, method, options)
    scaled = (weight.double() * 2.0**exponent).float()
    outcome = compressed(scaled, method, options)
    assert usual.decoded is not None, usual.reason
    assert outcome.decoded is not None, outcome.reason
    assert outcome.decoded.isfinite().all()
    assert outcome.error(scaled) < 1.05 * usual.error(weight) + 1e-3


@pytest.mark.parametrize(("method", "options"), VARIANTS, ids=str)
@pytest.mark.parametrize("peak", [3.4028235e38, 1e-40, 1.4e-45])
def test_at_the_ends_of_the_range_a_layer_is_close_or_dense(
    method: str, options: dict[str, Any], peak: float
) -> None:
    weight = (matrix(0).double() * peak).float()
    outcome = compressed(weight, method, options)
    if outcome.decoded is None:
        assert f"its weights of up to {peak:.1e}" in outcome.reason
    else:
        assert outcome.decoded.isfinite().all()
        assert outcome.error(weight) < 0.95
    assert outcome.decoded is not None or peak != 1e-40


@pytest.mark.parametrize(("method", "options"), VARIANTS, ids=str)
@pytest.mark.parametrize("outlier", [1e6, 3e38])
def test_one_outlier_is_kept_or_the_layer_stays_dense(
    method: str, options: dict[str, Any], outlier: float
) -> None:
    weight = matrix(0)
    weight[5, 3] = outlier
    outcome = compressed(weight, method, options)
    if outcome.decoded is None:
        assert "its weights of up to" in outcome.reason
    else:
        assert outcome.decoded.isfinite().all()
        assert outcome.error(weight) < 1


@pytest.mark.parametrize(
    ("dtype", "value", "reason"),
    [
        (torch.float64, 1e300, "outside float32's range"),
        (torch.float64, 1e-300, "outside float32's range"),
        (torch.float16, 65504, "outside the range of float16"),
        (torch.bfloat16, 3.38e38, "its weights of up to 3.4e+38"),
    ],
)
def test_the_range_of_the_weights_own_dtype_counts(
    dtype: torch.dtype, value: float, reason: str
) -> None:
    weight = (matrix(1) * value if dtype != torch.float64 else matrix(1).double() * value).to(dtype)
    outcome = compressed(weight, "svd", {"rank": 8})
    if outcome.decoded is None:
        assert reason in outcome.reason
    else:
        assert outcome.decoded.isfinite().all()
        assert matrix_error(weight.float(), outcome.decoded.float()).sqnr_db > 3
    assert outcome.decoded is None or dtype in (torch.float16, torch.bfloat16)


def test_a_half_precision_weight_that_rounds_to_infinity_stays_dense() -> None:
    weight = torch.full((8, 32), 65504.0).to(torch.float16)
    weight[:, ::2] = 60000
    weight[0, 1] = -65504
    outcome = compressed(weight, "rtn", {"format": "int2", "per": "tensor"})
    assert outcome.decoded is None or outcome.decoded.isfinite().all()


class Notes(SilentWatcher):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, layer: str, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize("method", ["km", "rq"])
def test_calibration_inputs_that_cannot_be_squared_are_left_out(method: str) -> None:
    linear, notes = layer(matrix(0)), Notes()
    images = [torch.full((4, 20), 1e25)]
    options = METHODS[method]
    small = vqzoo.compress(
        linear, method, layers="all", calibrate=images, progress=notes, **options
    )
    plain = vqzoo.compress(linear, method, layers="all", **options)
    assert torch.equal(small.module.get_parameter("weight"), plain.module.get_parameter("weight"))
    assert len(notes.texts) == 1


CODES = """
import torch
from vqzoo.plugin import Code, Floats, Indices, Quantizer, hookimpl

vqzoo_contract = 1

class Odd(Quantizer):
    name = "odd"
    def quantize(self, weight, options, context):
        return Code(tuple(weight.shape), {parts})
    def reconstruct(self, code, params):
        return torch.zeros(code.shape)

@hookimpl
def vqzoo_quantizers():
    return [Odd()]
"""


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ('{"x": Floats(torch.ones(1), 401)}', "exponent 401"),
        ('{"x": Floats(torch.ones(1), -500)}', "exponent -500"),
        ('{"x": Floats(torch.ones((1,) * 9))}', "8 dimensions"),
        ('{"x": Indices(torch.zeros((1,) * 10, dtype=torch.uint8), 2)}', "8 dimensions"),
        ('{"x": Indices(torch.zeros(20000, dtype=torch.uint8), 1)}', "20000 codes for 480"),
        ('{"x": Floats(torch.ones(1).expand(1 << 35))}', "17179869184 elements"),
    ],
)
def test_the_limits_of_a_reader_hold_when_a_layer_is_compressed(
    parts: str, words: str, tmp_path: Any
) -> None:
    path = tmp_path / "odd.py"
    path.write_text(CODES.replace("{parts}", parts))
    with pytest.raises(PluginError, match=words):
        vqzoo.compress(layer(matrix(0)), "odd", layers="all", plugins=[path])


def test_a_name_that_no_file_can_hold_stays_dense() -> None:
    model = nn.ModuleDict({"x" * 200: nn.Linear(20, 24), "head": nn.Linear(20, 24)})
    small = vqzoo.compress(model, "rtn", layers="all")
    assert [one.layer.name for one in small.layers] == ["head"]
    assert "more than the 200 characters" in small.skipped["x" * 200]
