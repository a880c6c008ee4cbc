"""The conformance kit's rules for quantizers and transforms alike."""

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
    rules_declaration.it_describes_itself,
    rules_declaration.options_can_be_given_as_text,
    rules_declaration.unknown_options_are_refused,
    rules_matrices.ordinary_weights_are_not_skipped,
    rules_matrices.every_shape_is_compressed_or_skipped,
    rules_matrices.every_value_is_compressed_or_skipped,
    rules_matrices.empty_and_nonfinite_matrices_are_refused,
    rules_purity.the_input_is_not_modified,
    rules_purity.the_same_seed_gives_the_same_code,
    rules_purity.global_random_state_is_not_used,
    rules_decoding.reconstruct_equals_decode,
    rules_decoding.decode_writes_into_out,
    rules_decoding.rows_decode_to_rows_of_the_matrix,
    rules_decoding.decoding_does_not_modify_the_code,
    rules_decoding.reconstruct_is_differentiable,
    rules_decoding.cpu_and_gpu_agree,
    rules_apply.apply_equals_decode_then_matmul,
    rules_apply.apply_is_differentiable,
    rules_storage.stored_bytes_match_the_counted_bits,
    rules_storage.an_artifact_preserves_the_code,
    rules_error.decoding_beats_a_zero_matrix,
    rules_hostile.damaged_codes_are_refused,
)
