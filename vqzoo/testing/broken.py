"""How a broken rule is told."""

import inspect
from collections.abc import Callable, Sequence
from typing import TypeVar

Subject = TypeVar("Subject")


class ContractBroken(AssertionError):
    """A plugin broke a rule of the contract; the message says which, and what happened."""


def check_rules(
    name: str, rules: Sequence[Callable[[Subject], None]], make: Callable[[], Subject]
) -> None:
    """Try every rule, each on a fresh subject.

    A rule is a function whose docstring states it, and that raises when it is broken.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each rule that was broken, its cause attached.
    """
    broken: list[Exception] = []
    for rule in rules:
        try:
            rule(make())
        except Exception as error:
            found = ContractBroken(_explain(rule, error))
            found.__cause__ = None if isinstance(error, ContractBroken) else error
            broken.append(found)
    if broken:
        raise ExceptionGroup(f"{name} breaks {len(broken)} of {len(rules)} rules", broken)


def require(holds: bool, what: str) -> None:
    """Raise `ContractBroken` with what happened unless it `holds`."""
    if not holds:
        raise ContractBroken(what)


def _explain(rule: Callable[..., None], error: Exception) -> str:
    happened = (
        str(error) if isinstance(error, ContractBroken) else f"{type(error).__name__}: {error}"
    )
    return f"{rule.__name__.replace('_', ' ')}: {happened}\nThe rule: {inspect.getdoc(rule)}"
