"""Rules for methods that know the price of a bit."""

from itertools import pairwise

from vqzoo.compression.options import validate_options
from vqzoo.errors import UsageError
from vqzoo.numerics.coding.entropy import entropy_bits
from vqzoo.plugin.code import Code, Indices
from vqzoo.testing.broken import require
from vqzoo.testing.matrices import REFERENCE, gaussian
from vqzoo.testing.subject import QuantizerSubject

_PRICES = (1e-15, 1e-6, 1.0, 1e6)
_TOLERANCE = 1.01


def every_price_is_taken(subject: QuantizerSubject) -> None:
    """`price_option`, if there is one, names an option that takes every price from 1e-15 to 1e6;
    on normally distributed weights, codes at a higher price have no more entropy (within 1%), and
    less at the highest than at the lowest."""
    option = subject.quantizer.price_option
    if option is None:
        return
    bits: list[float] = []
    for price in _PRICES:
        try:
            options = validate_options(subject.quantizer, {option: price})
        except UsageError as error:
            require(False, f"{option}={price:g}: {error}")
        result = subject.compress(gaussian(REFERENCE), subject.fit(REFERENCE, options))
        require(result is not None, f"{option}={price:g}: the method skipped it")
        assert result is not None
        bits.append(_entropy(result[0].code))
    for (price, lower), (higher_price, higher) in pairwise(zip(_PRICES, bits, strict=True)):
        require(
            higher <= lower * _TOLERANCE + 64,
            f"{option}={higher_price:g} takes {higher:.0f} bits, {option}={price:g} {lower:.0f}",
        )
    require(bits[-1] < bits[0], f"{option} changes nothing")


def _entropy(code: Code) -> float:
    """Order-0 entropy of all codes in bits, those of children included."""
    parts = [part for part in code.parts.values() if isinstance(part, Indices)]
    inner = sum(_entropy(child.code) for child in code.children.values())
    return inner + sum(entropy_bits(part.values, part.cardinality) for part in parts)
