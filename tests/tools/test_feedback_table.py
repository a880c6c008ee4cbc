"""Error feedback lowers what errors do to the logits on every layer, at equal bits."""

import pytest

from tools.feedback_table import CASES, Case, Measured, measure, ratios


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure(128)


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[-1]], ids=lambda case: case.label)
def test_every_layer_gains(measured: Measured, case: Case) -> None:
    gains = ratios(measured, case)
    assert len(gains) == 8
    assert max(gains.values()) < 1.0
    assert sum(gains.values()) / len(gains) < 0.7
