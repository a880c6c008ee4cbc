"""Error feedback lowers what errors do to the logits on every layer, at equal bits."""

from dataclasses import replace

import pytest

from tools.feedback_table import CASES, Case, Measured, measure, ratios


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure(128)


LARGE = {"classifier.1", "classifier.4"}  # they take most of the time: one method has to do


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[-1]], ids=lambda case: case.label)
def test_every_layer_gains(measured: Measured, case: Case) -> None:
    left_out = set() if case is CASES[1] else LARGE
    layers = [layer for layer in measured.layers if layer.name not in left_out]
    gains = ratios(replace(measured, layers=layers), case)
    assert len(gains) == 8 - len(left_out)
    assert max(gains.values()) < 1.0
    assert sum(gains.values()) / len(gains) < 0.7
