"""The conformance kit's rules for transforms."""

from collections.abc import Callable, Mapping
from typing import Any

from vqzoo.plugin.transform import Transform
from vqzoo.testing.broken import check_rules
from vqzoo.testing.rules import transform as rules_transform
from vqzoo.testing.rules.common import COMMON_RULES
from vqzoo.testing.subject import Results, TransformSubject, transform_subject_of

TRANSFORM_RULES: tuple[Callable[[TransformSubject], None], ...] = (
    *COMMON_RULES,
    rules_transform.reconstruct_inverts_forward,
    rules_transform.children_of_the_wrong_shape_are_refused,
)


def check_transform(transform: Transform | type[Transform], *options: Mapping[str, Any]) -> None:
    """Check a transform against the contract, alone and with 8-bit rounding behind it.

    Args:
        transform: the class, or an instance.
        *options: options to test it with, as a user would give them; its defaults if there are
            none. Booleans and enumerated options are also tested with each of their values.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each broken rule.

    Examples:
        >>> from vqzoo.testing import check_transform
        >>> def test_the_contract(): check_transform(MyRotation, {}, {"power": 0.5})
    """
    name = transform.__name__ if isinstance(transform, type) else type(transform).__name__
    results: Results = {}
    check_rules(name, TRANSFORM_RULES, lambda: transform_subject_of(transform, options, results))
