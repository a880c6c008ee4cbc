"""What plugins brought, by name; clashes are kept and refused only when the name is used bare."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vqzoo.errors import UsageError, did_you_mean

Item = TypeVar("Item")


@dataclass(frozen=True)
class Origin:
    """Where a plugin came from.

    Attributes:
        entry_point: its name in the group `vqzoo`.
        distribution: the installed package that declares it.
        version: that package's version.
    """

    entry_point: str
    distribution: str
    version: str


@dataclass(frozen=True)
class Registered(Generic[Item]):
    """An item and its origin."""

    name: str
    item: Item
    origin: Origin


class Registry(Generic[Item]):
    """Items of one kind ("method", "layer selector", "packing"), by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._claims: dict[str, list[Registered[Item]]] = {}

    def add(self, name: str, item: Item, origin: Origin) -> None:
        """Register `item`; a name that is taken already becomes ambiguous."""
        self._claims.setdefault(name, []).append(Registered(name, item, origin))

    def get(self, name: str) -> Registered[Item]:
        """The item called `name` or `distribution:name`.

        Raises:
            UsageError: the name is unknown (close matches and all names are given) or ambiguous.
        """
        claims = self.claims(name)
        if not claims:
            raise UsageError(self._unknown(name))
        return only_claim(self.kind, claims)

    def claims(self, name: str) -> list[Registered[Item]]:
        """All items called `name` or `distribution:name`."""
        distribution, _, bare = name.rpartition(":")
        return [
            claim
            for claim in self._claims.get(bare, [])
            if not distribution or claim.origin.distribution == distribution
        ]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._claims)

    def clashes(self) -> dict[str, list[Origin]]:
        """The names that more than one plugin claims."""
        return {n: [c.origin for c in cs] for n, cs in self._claims.items() if len(cs) > 1}

    def __iter__(self) -> Iterator[Registered[Item]]:
        for name in self.names():
            yield from self._claims[name]

    def _unknown(self, name: str) -> str:
        names = self.names()
        if not names:
            return f"no {self.kind} called {name!r}: no plugin brings any (see `vqzoo plugins`)"
        hint = did_you_mean(name.rpartition(":")[2], names)
        return f"no {self.kind} called {name!r}{hint} There are: {', '.join(names)}"


def only_claim(kind: str, claims: Sequence[Registered[Item]]) -> Registered[Item]:
    """The one item that claims a name.

    Raises:
        UsageError: there are several; the message says how to tell them apart.
    """
    if len(claims) == 1:
        return claims[0]
    bare = claims[0].name
    distributions = {claim.origin.distribution for claim in claims}
    if len(distributions) == 1:
        raise UsageError(f"{kind} {bare!r} is claimed twice by {distributions.pop()}")
    choices = " or ".join(f"{claim.origin.distribution}:{bare}" for claim in claims)
    raise UsageError(f"{kind} {bare!r} is claimed by several plugins: say {choices}")
