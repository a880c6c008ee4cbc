"""The conformance kit's rules for quantizers."""

from collections.abc import Callable

from vqzoo.plugin.quantizer import Quantizer
from vqzoo.testing.broken import check_rules
from vqzoo.testing.rules import declaration as rules_declaration
from vqzoo.testing.rules import error as rules_error
from vqzoo.testing.rules import storage as rules_storage
from vqzoo.testing.rules.common import COMMON_RULES
from vqzoo.testing.subject import QuantizerSubject, Results, subject_of

QUANTIZER_RULES: tuple[Callable[[QuantizerSubject], None], ...] = (
    *COMMON_RULES,
    rules_declaration.fitting_is_told_and_done_once,
    rules_declaration.paper_bits_are_a_size,
    rules_storage.stored_bits_are_what_is_stored,
    rules_storage.layout_is_what_is_stored,
    rules_storage.a_ratio_is_reached,
    rules_error.the_ladder_climbs,
)


def check_quantizer(quantizer: Quantizer | type[Quantizer]) -> None:
    """Try what the contract promises of a quantizer, with every rung of its `ladder`.

    Args:
        quantizer: the class, or an instance.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each rule that was broken; each says what
            happened and states the rule.

    Example:
        >>> from vqzoo.testing import check_quantizer
        >>> def test_the_contract(): check_quantizer(MyQuantizer)
    """
    name = quantizer.__name__ if isinstance(quantizer, type) else type(quantizer).__name__
    results: Results = {}
    check_rules(name, QUANTIZER_RULES, lambda: subject_of(quantizer, results))
