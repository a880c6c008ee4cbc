"""The conformance kit's rules for quantizers."""

from collections.abc import Callable

from vqzoo.plugin.quantizer import Quantizer
from vqzoo.testing.broken import check_rules
from vqzoo.testing.rules import declaration as rules_declaration
from vqzoo.testing.rules import error as rules_error
from vqzoo.testing.rules import price as rules_price
from vqzoo.testing.rules import storage as rules_storage
from vqzoo.testing.rules.common import COMMON_RULES
from vqzoo.testing.subject import QuantizerSubject, Results, subject_of

QUANTIZER_RULES: tuple[Callable[[QuantizerSubject], None], ...] = (
    *COMMON_RULES,
    rules_declaration.fit_notes_what_it_clamps_and_is_idempotent,
    rules_declaration.paper_bits_are_positive,
    rules_storage.stored_bits_are_exact,
    rules_storage.layout_matches_the_code,
    rules_storage.the_requested_ratio_is_reached,
    rules_error.the_ladder_goes_from_coarse_to_fine,
    rules_price.every_price_is_taken,
)


def check_quantizer(quantizer: Quantizer | type[Quantizer]) -> None:
    """Check a quantizer against the contract, with every rung of its `ladder`.

    Args:
        quantizer: the class, or an instance.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each broken rule, which says what happened and
            states the rule.

    Examples:
        >>> from vqzoo.testing import check_quantizer
        >>> def test_the_contract(): check_quantizer(MyQuantizer)
    """
    name = quantizer.__name__ if isinstance(quantizer, type) else type(quantizer).__name__
    results: Results = {}
    check_rules(name, QUANTIZER_RULES, lambda: subject_of(quantizer, results))
