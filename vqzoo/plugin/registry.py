"""Items that plugins provide, by name; a clash is an error only when the bare name is used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vqzoo.errors import UsageError, did_you_mean

Item = TypeVar("Item")


@dataclass(frozen=True)
class Origin:
    """The source of a plugin.

    Attributes:
        entry_point: its name in the entry-point group `vqzoo`.
        distribution: the installed distribution that declares it.
        version: the version of that distribution.
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
    """Items of one kind ("method", "transform", "layer selector", "packing"), by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._claims: dict[str, list[Registered[Item]]] = {}
        self._failures: list[str] = []

    def add(self, name: str, item: Item, origin: Origin) -> None:
        """Register `item`; a name that is already taken becomes ambiguous."""
        self._claims.setdefault(name, []).append(Registered(name, item, origin))

    def add_failure(self, text: str) -> None:
        """Remember a plugin that could not be loaded, and so might have provided any name."""
        self._failures.append(text)

    def get(self, name: str) -> Registered[Item]:
        """The item called `name` or `distribution:name`.

        Raises:
            UsageError: the name is unknown (the message lists close matches and all names) or
                ambiguous.
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
        """The names that several plugins claim, with the origins of the claims."""
        return {n: [c.origin for c in cs] for n, cs in self._claims.items() if len(cs) > 1}

    def __iter__(self) -> Iterator[Registered[Item]]:
        for name in self.names():
            yield from self._claims[name]

    def unloaded(self) -> str:
        """A clause that names the plugins that failed to load; empty if all of them loaded."""
        if not self._failures:
            return ""
        return f"; a plugin that could not be loaded may provide it: {', '.join(self._failures)}"

    def _unknown(self, name: str) -> str:
        names = self.names()
        if not names:
            have = "no plugin provides any (see `vqzoo plugins`)"
            return f"no {self.kind} called {name!r}: {have}{self.unloaded()}"
        hint = did_you_mean(name.rpartition(":")[2], names)
        have = f"There are: {', '.join(names)}"
        return f"no {self.kind} called {name!r}{hint} {have}{self.unloaded()}"


def only_claim(kind: str, claims: Sequence[Registered[Item]]) -> Registered[Item]:
    """The one item that claims a name.

    Raises:
        UsageError: several items claim the name; the message says how to choose one.
    """
    if len(claims) == 1:
        return claims[0]
    bare = claims[0].name
    distributions = {claim.origin.distribution for claim in claims}
    if len(distributions) == 1:
        raise UsageError(f"{kind} {bare!r} is claimed twice by {distributions.pop()}")
    choices = " or ".join(f"{claim.origin.distribution}:{bare}" for claim in claims)
    raise UsageError(f"{kind} {bare!r} is claimed by several plugins: write {choices}")
