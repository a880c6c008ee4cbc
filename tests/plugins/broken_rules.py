"""What the conformance kit raised."""

import pytest

from vqzoo.testing import ContractBroken


def broken_rules(group: pytest.ExceptionInfo[BaseException]) -> list[str]:
    """The messages of a check's `ExceptionGroup`, one per broken rule."""
    assert isinstance(group.value, ExceptionGroup)
    assert all(isinstance(one, ContractBroken) for one in group.value.exceptions)
    return [str(one) for one in group.value.exceptions]
