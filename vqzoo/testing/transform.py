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
    rules_transform.undoing_gives_the_matrix_back,
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
    results: Results = {}
    check_rules(name, TRANSFORM_RULES, lambda: transform_subject_of(transform, options, results))
