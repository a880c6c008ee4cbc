"""Run rules, and report those that are broken."""

import inspect
from collections.abc import Callable, Sequence
from typing import TypeVar

Subject = TypeVar("Subject")


class ContractBroken(AssertionError):
    """A plugin broke a rule of the contract; the message says which, and what happened."""


def check_rules(
    name: str, rules: Sequence[Callable[[Subject], None]], make: Callable[[], Subject]
) -> None:
    """Run every rule on a fresh subject.

    A rule is a function whose docstring states it, and that raises if it is broken.

    Args:
        name: the name of what is tested, for the report.
        rules: the rules.
        make: makes a subject.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each broken rule, with the cause attached.
    """
    broken: list[Exception] = []
    for rule in rules:
        try:
            rule(make())
        except Exception as error:
            violation = ContractBroken(_explain(rule, error))
            violation.__cause__ = None if isinstance(error, ContractBroken) else error
            broken.append(violation)
    if broken:
        raise ExceptionGroup(f"{name} breaks {len(broken)} of {len(rules)} rules", broken)


def require(condition: bool, violation: str) -> None:
    """Raise `ContractBroken` with a description of the violation unless the condition holds."""
    if not condition:
        raise ContractBroken(violation)


def _explain(rule: Callable[..., None], error: Exception) -> str:
    violation = (
        str(error) if isinstance(error, ContractBroken) else f"{type(error).__name__}: {error}"
    )
    return f"{rule.__name__.replace('_', ' ')}: {violation}\nThe rule: {inspect.getdoc(rule)}"
