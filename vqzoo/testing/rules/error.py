"""Rules for the error: more bits give less of it."""

from dataclasses import dataclass
from itertools import pairwise

from vqzoo.plugin.code import stored_bits
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, gaussian
from vqzoo.testing.subject import Subject

_TOLERANCE = 1.02


@dataclass(frozen=True)
class _Rung:
    """A rung of the ladder: its options as text, stored bits, and relative squared error."""

    text: str
    bits: int
    error: float


def the_ladder_goes_from_coarse_to_fine(subject: Subject) -> None:
    """On normally distributed weights, each rung of `ladder` stores no less and errs no more
    (within 2%) than the one before it, and the last rung errs less than the first."""
    rungs = _measure_rungs(subject)
    for rung, finer in pairwise(rungs):
        require(
            rung.bits <= finer.bits,
            f"{finer.text} stores less ({finer.bits} bits) than {rung.text} ({rung.bits})",
        )
        require(
            finer.error <= rung.error * _TOLERANCE + 1e-9,
            f"{finer.text} errs more ({finer.error:.4g}) than {rung.text} ({rung.error:.4g})",
        )
    if len(rungs) > 1:
        require(rungs[-1].error < rungs[0].error, "the last rung errs as much as the first")


def decoding_beats_a_zero_matrix(subject: Subject) -> None:
    """On normally distributed weights, the last rung errs less than a matrix of zeros would: its
    squared error is below the squared norm of the weights."""
    finest = _measure_rungs(subject)[-1]
    require(finest.error < 1, f"{finest.text}: relative squared error {finest.error:.4g}")


def _measure_rungs(subject: Subject) -> list[_Rung]:
    """Compress with each rung that fits."""
    weight = gaussian(REFERENCE)
    rungs = []
    for text, options in subject.rungs(REFERENCE):
        result = subject.compress(weight, options)
        require(result is not None, f"{text}: the method skipped it")
        assert result is not None
        compressed, decoded = result
        error = float((weight - decoded).square().sum() / weight.square().sum())
        rungs.append(_Rung(text, stored_bits(compressed.code), error))
    require(bool(rungs), f"no rung of the ladder fits a {REFERENCE.name} matrix")
    return rungs
