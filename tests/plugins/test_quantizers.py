"""Behaviour of all built-in quantizers beyond the contract, which `vqzoo.testing` checks."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizing import fitted
from torch import Tensor

from vqzoo.compression.measures.distortion import matrix_error
from vqzoo.compression.options import choose_options
from vqzoo.compression.selection import MethodChoice
from vqzoo.errors import UsageError
from vqzoo.plugin import Code, Options, Quantizer, SkipLayer, stored_bits
from vqzoo.plugin.manager import installed_plugins

QUANTIZERS = [entry.item for entry in installed_plugins().quantizers]
PRUNING = ("prune", "deep-compression")
OF_ANY_SIZE = (*PRUNING, "ecq")  # their size depends on the weights


@pytest.fixture(params=QUANTIZERS, ids=lambda quantizer: quantizer.name)
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    return request.param


def weights(m: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed)) * 0.05


def variants(quantizer: Quantizer) -> Iterator[dict[str, Any]]:
    """Yield the defaults, and each value of each option that has few values."""
    yield {}
    for name, spec in quantizer.Options.model_json_schema().get("properties", {}).items():
        for value in spec.get("enum", []):
            yield {name: value}
        if spec.get("type") == "boolean":
            yield {name: not spec["default"]}
        if spec.get("type") == "integer" and spec.get("minimum") == 0:
            yield {name: 0}


VARIANTS = [(quantizer, options) for quantizer in QUANTIZERS for options in variants(quantizer)]
NAMES = [f"{q.name}-{'-'.join(f'{k}={v}' for k, v in o.items())}" for q, o in VARIANTS]
every_variant = pytest.mark.parametrize(("quantizer", "options"), VARIANTS, ids=NAMES)


def decoded(quantizer: Quantizer, code: Code) -> Tensor:
    return quantizer.decode(code, code.floats())


def test_there_are_quantizers() -> None:
    assert len(QUANTIZERS) >= 6
    assert len(VARIANTS) > 2 * len(QUANTIZERS)


def test_every_method_and_option_is_described(quantizer: Quantizer) -> None:
    assert quantizer.summary
    assert quantizer.source
    for name, field in quantizer.Options.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (33, 50)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_stored_bits_are_predicted_for_every_combination(
    quantizer: Quantizer, shape: tuple[int, int]
) -> None:
    if quantizer.name in OF_ANY_SIZE:
        assert not list(quantizer.candidates(*shape))
        return
    choices = [
        [(name, value) for value in spec["enum"]]
        for name, spec in quantizer.Options.model_json_schema().get("properties", {}).items()
        if "enum" in spec
    ]
    for combination in itertools.product(*choices):
        code, used, _ = fitted(quantizer, weights(*shape), dict(combination))
        assert quantizer.stored_bits(*shape, used) == stored_bits(code), combination
        assert quantizer.layout(*shape, used).parts.keys() == code.parts.keys(), combination


@every_variant
@pytest.mark.parametrize("value", [0.0, 1.0, -1e30, 1e30, 1e-30])
def test_constant_matrices(quantizer: Quantizer, options: dict[str, Any], value: float) -> None:
    weight = torch.full((6, 10), value)
    if value == 0 and quantizer.name in PRUNING:
        with pytest.raises(SkipLayer, match="no weight survives"):
            fitted(quantizer, weight, options)
        return
    code, used, _ = fitted(quantizer, weight, options)
    result = decoded(quantizer, code)
    if quantizer.name in PRUNING:
        assert 0 < (result != 0).sum() < 60
        weight = weight.where(result != 0, 0.0)
    assert torch.isfinite(result).all()
    if used.model_dump().get("scale") == "none" and value != 1 and not code.floats():
        return  # signs alone do not keep the size of the weights
    torch.testing.assert_close(result, weight, rtol=0.05, atol=0)


@every_variant
@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_huge_and_tiny_weights_compress_as_well_as_usual_ones(
    quantizer: Quantizer, options: dict[str, Any], size: float
) -> None:
    weight = weights(24, 40)
    code = fitted(quantizer, weight, options)[0]
    if not code.floats():
        pytest.skip("a code without floats does not keep the size of the weights")
    usual = matrix_error(weight, decoded(quantizer, code)).sqnr_db
    scaled_code = fitted(quantizer, weight * size, options)[0]
    scaled = matrix_error(weight * size, decoded(quantizer, scaled_code)).sqnr_db
    if usual is None or scaled is None:
        assert usual == scaled
    else:
        assert scaled > min(usual, 60.0) - 0.6


def test_the_seed_hardly_changes_the_error(quantizer: Quantizer) -> None:
    weight = weights(40, 24)
    one, other = (fitted(quantizer, weight, {}, seed=seed)[0] for seed in (1, 2))
    a, b = (matrix_error(weight, decoded(quantizer, c)).sqnr_db for c in (one, other))
    assert a is not None
    assert b is not None
    assert abs(a - b) < 1.0


@every_variant
def test_clamped_options_are_noted(quantizer: Quantizer, options: dict[str, Any]) -> None:
    code, used, notes = fitted(quantizer, weights(2, 3), options)
    requested = quantizer.Options(**options).model_dump()
    changed = {name for name, value in used.model_dump().items() if value != requested[name]}
    assert len(notes) >= len(changed)
    for name in changed:
        assert any(f"{name}={requested[name]}" in note for note in notes), (name, notes)
    assert not fitted(quantizer, weights(2, 3), used.model_dump())[2], "fitted options fit"
    assert decoded(quantizer, code).shape == (2, 3)


def test_large_options_are_clamped_not_refused(quantizer: Quantizer) -> None:
    for name, spec in quantizer.Options.model_json_schema().get("properties", {}).items():
        kinds = [spec, *spec.get("anyOf", [])]
        if not any(kind.get("type") == "integer" for kind in kinds):
            continue
        top = min((kind["maximum"] for kind in kinds if "maximum" in kind), default=10**6)
        code, used, notes = fitted(quantizer, weights(5, 6), {name: top})
        assert decoded(quantizer, code).shape == (5, 6)
        if getattr(used, name) != top:
            assert any(f"{name}={top}" in note for note in notes), f"{name} changed without a note"


def test_the_options_chosen_for_a_ratio_are_nearly_the_best(quantizer: Quantizer) -> None:
    """Candidates are ranked by expected error: at most 2 dB from the best one that fits."""
    m, n, ratio = 64, 96, 10.0
    candidates = {quantizer.fit(m, n, c, lambda text: None) for c in quantizer.candidates(m, n)}
    fitting = [c for c in candidates if quantizer.stored_bits(m, n, c) * ratio <= 32 * m * n]
    if not fitting:
        return
    weight = weights(m, n)

    def quality(options: Options) -> float:
        code, _, _ = fitted(quantizer, weight, options.model_dump())
        sqnr = matrix_error(weight, decoded(quantizer, code)).sqnr_db
        assert sqnr is not None
        return sqnr

    chosen = quantizer.options_for(m, n, ratio, {})
    assert chosen is not None
    fitting.sort(key=lambda c: quantizer.expected_error(m, n, c))
    assert quality(chosen) >= max(quality(c) for c in fitting[:: max(1, len(fitting) // 12)]) - 2


def test_a_ratio_keeps_the_options_that_the_user_fixed(quantizer: Quantizer) -> None:
    for name, spec in quantizer.Options.model_json_schema().get("properties", {}).items():
        for value in spec.get("enum", []):
            chosen = quantizer.options_for(64, 96, 8.0, {name: value})
            assert chosen is None or getattr(chosen, name) == value


def test_options_that_contradict_a_ratio_are_usage_errors() -> None:
    """Whatever a user combines with --ratio gives one line, never a validation error."""
    for quantizer in QUANTIZERS:
        for name, spec in quantizer.Options.model_json_schema().get("properties", {}).items():
            numbers = [kind for kind in [spec, *spec.get("anyOf", [])] if "type" in kind]
            for kind in numbers:
                value = {"integer": 2, "number": 0.5}.get(kind["type"])
                if value is None:
                    continue
                choice = MethodChoice(quantizer.name, {name: value}, 8.0)
                with contextlib.suppress(UsageError, SkipLayer):
                    options = choose_options(quantizer, (32, 48), choice, lambda text: None)
                    assert getattr(options, name) == value


def test_an_unknown_option_is_refused_with_a_list_of_options(quantizer: Quantizer) -> None:
    choice = MethodChoice(quantizer.name, {"colour": 3})
    with pytest.raises(UsageError, match=f"{quantizer.name} has no option 'colour'; it has: "):
        choose_options(quantizer, (8, 8), choice, lambda text: None)


@settings(max_examples=15, deadline=None)
@given(
    m=st.integers(1, 24),
    n=st.integers(1, 40),
    seed=st.integers(0, 3),
    spread=st.sampled_from([0.0, 1.0, 6.0]),
)
def test_any_small_matrix(m: int, n: int, seed: int, spread: float) -> None:
    rows = torch.logspace(0, -spread, m)[:, None]
    weight = weights(m, n, seed) * rows
    for quantizer in QUANTIZERS:
        code, used, _ = fitted(quantizer, weight, {})
        result = decoded(quantizer, code)
        assert result.shape == (m, n)
        assert torch.isfinite(result).all()
        if quantizer.name not in OF_ANY_SIZE:
            assert quantizer.stored_bits(m, n, used) == stored_bits(code)
        sqnr = matrix_error(weight, result).sqnr_db
        assert sqnr is None or sqnr > -1.0
