"""The conformance kit's rules for quantizers."""

from collections.abc import Callable

from vqzoo.plugin.quantizer import Quantizer
from vqzoo.testing import (
    rules_apply,
    rules_declaration,
    rules_decoding,
    rules_error,
    rules_hostile,
    rules_matrices,
    rules_purity,
    rules_storage,
)
from vqzoo.testing.broken import check_rules
from vqzoo.testing.subject import QuantizerSubject, subject_of

QUANTIZER_RULES: tuple[Callable[[QuantizerSubject], None], ...] = (
    rules_declaration.it_introduces_itself,
    rules_declaration.options_are_scalars_that_text_can_give,
    rules_declaration.unknown_options_are_refused,
    rules_declaration.fitting_is_told_and_done_once,
    rules_declaration.paper_bits_are_a_size,
    rules_matrices.ordinary_weights_are_not_skipped,
    rules_matrices.every_shape_is_compressed_or_skipped,
    rules_matrices.every_value_is_compressed_or_skipped,
    rules_matrices.empty_and_nan_never_pass,
    rules_purity.the_input_is_left_untouched,
    rules_purity.the_same_seed_gives_the_same_code,
    rules_purity.global_random_state_is_left_alone,
    rules_decoding.reconstruct_equals_decode,
    rules_decoding.decode_fills_out,
    rules_decoding.decoding_leaves_the_code_alone,
    rules_decoding.reconstruct_is_differentiable,
    rules_decoding.cpu_and_gpu_agree,
    rules_apply.apply_equals_decode_then_matmul,
    rules_apply.apply_is_differentiable,
    rules_storage.stored_bits_are_what_is_stored,
    rules_storage.layout_is_what_is_stored,
    rules_storage.a_ratio_is_reached,
    rules_storage.the_file_holds_what_the_core_counts,
    rules_storage.an_artifact_gives_back_the_code,
    rules_error.the_ladder_climbs,
    rules_error.decoding_is_better_than_nothing,
    rules_hostile.damaged_codes_are_refused,
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
    check_rules(name, QUANTIZER_RULES, lambda: subject_of(quantizer))
