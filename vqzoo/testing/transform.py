"""The conformance kit's rules for transforms."""

from collections.abc import Callable, Mapping
from typing import Any

from vqzoo.plugin.transform import Transform
from vqzoo.testing import (
    rules_apply,
    rules_declaration,
    rules_decoding,
    rules_error,
    rules_hostile,
    rules_matrices,
    rules_purity,
    rules_storage,
    rules_transform,
)
from vqzoo.testing.broken import check_rules
from vqzoo.testing.subject import TransformSubject, transform_subject_of

TRANSFORM_RULES: tuple[Callable[[TransformSubject], None], ...] = (
    rules_declaration.it_introduces_itself,
    rules_declaration.options_are_scalars_that_text_can_give,
    rules_declaration.unknown_options_are_refused,
    rules_transform.undoing_gives_the_matrix_back,
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
    rules_storage.the_file_holds_what_the_core_counts,
    rules_storage.an_artifact_gives_back_the_code,
    rules_error.decoding_is_better_than_nothing,
    rules_hostile.damaged_codes_are_refused,
    rules_transform.children_of_another_shape_are_refused,
)


def check_transform(transform: Transform | type[Transform], *options: Mapping[str, Any]) -> None:
    """Try what the contract promises of a transform, alone and with 8-bit rounding behind it.

    Args:
        transform: the class, or an instance.
        *options: options to try it with, as a user would give them; its defaults alone unless
            there are any. Every value of an option that has few of them is tried, too.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each rule that was broken.

    Example:
        >>> from vqzoo.testing import check_transform
        >>> def test_the_contract(): check_transform(MyRotation, {}, {"power": 0.5})
    """
    name = transform.__name__ if isinstance(transform, type) else type(transform).__name__
    check_rules(name, TRANSFORM_RULES, lambda: transform_subject_of(transform, options))
