"""More bits, less error."""

from itertools import pairwise

from vqzoo.plugin.code import stored_bits
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, gaussian
from vqzoo.testing.subject import Subject

_TOLERANCE = 1.02


def the_ladder_climbs(subject: Subject) -> None:
    """Along `ladder`, from coarse to fine, each rung stores no less and errs no more (within 2%)
    than the one before, on normal weights; the last errs less than the first."""
    found = _measured(subject)
    for (text, bits, error), (next_text, next_bits, next_error) in pairwise(found):
        require(bits <= next_bits, f"{next_text} stores less ({next_bits}) than {text} ({bits})")
        require(
            next_error <= error * _TOLERANCE + 1e-9,
            f"{next_text} errs more ({next_error:.4g}) than {text} ({error:.4g})",
        )
    if len(found) > 1:
        require(found[-1][2] < found[0][2], "the last rung errs as much as the first")


def decoding_is_better_than_nothing(subject: Subject) -> None:
    """The last rung errs less than a matrix of zeros would: its squared error on normal weights
    is under their squared norm."""
    text, _, error = _measured(subject)[-1]
    require(error < 1, f"{text}: relative squared error {error:.4g}")


def _measured(subject: Subject) -> list[tuple[str, int, float]]:
    """Each rung that fits: its text, stored bits, relative squared error."""
    weight = gaussian(REFERENCE)
    found = []
    for text, options in subject.rungs(REFERENCE):
        compressed = subject.compress(weight, options)
        require(compressed is not None, f"{text}: it was skipped")
        assert compressed is not None
        error = float((weight - compressed[1]).square().sum() / weight.square().sum())
        found.append((text, stored_bits(compressed[0].code), error))
    require(bool(found), f"no rung of the ladder fits a {REFERENCE.name} matrix")
    return found
