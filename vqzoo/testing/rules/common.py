"""The conformance kit's rules that hold for quantizers and transforms alike."""

from collections.abc import Callable

from vqzoo.testing.rules import apply as rules_apply
from vqzoo.testing.rules import declaration as rules_declaration
from vqzoo.testing.rules import decoding as rules_decoding
from vqzoo.testing.rules import error as rules_error
from vqzoo.testing.rules import hostile as rules_hostile
from vqzoo.testing.rules import matrices as rules_matrices
from vqzoo.testing.rules import purity as rules_purity
from vqzoo.testing.rules import storage as rules_storage
from vqzoo.testing.subject import Subject

COMMON_RULES: tuple[Callable[[Subject], None], ...] = (
    rules_declaration.it_introduces_itself,
    rules_declaration.options_are_scalars_that_text_can_give,
    rules_declaration.unknown_options_are_refused,
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
)
