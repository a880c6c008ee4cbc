"""Of several ways to store a layer, those that some price of a bit makes the cheapest."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Offer(Protocol):
    """A way to store a layer."""

    @property
    def bits(self) -> int:
        """Bits that it adds to the file."""

    @property
    def loss(self) -> float:
        """Squared logits that it is predicted to cost."""


AnOffer = TypeVar("AnOffer", bound=Offer)


def cost(offer: Offer, price: float) -> float:
    """Loss + price · bits, in squared logits."""
    return offer.loss + price * offer.bits


def cheapest(offers: Iterable[AnOffer], price: float) -> AnOffer:
    """The offer of smallest loss + price · bits; of equals the first.

    The sum over layers is then the smallest that any combination of their offers has, and no
    combination of at most as many bits has a smaller loss (Everett 1963; Shoham and Gersho 1988).
    """
    return min(offers, key=lambda offer: cost(offer, price))


def lower_hull(offers: Iterable[AnOffer]) -> list[AnOffer]:
    """The offers that are the cheapest at some positive price, from few bits to many.

    Of offers that are equal in both, and of those on a line between others, only the ends stay.
    """
    hull: list[AnOffer] = []
    for offer in sorted(offers, key=lambda offer: (offer.bits, offer.loss)):
        if hull and offer.loss >= hull[-1].loss:
            continue  # more bits for nothing
        while len(hull) > 1 and _is_above(hull[-2], hull[-1], offer):
            hull.pop()
        hull.append(offer)
    return hull


def _is_above(left: Offer, middle: Offer, right: Offer) -> bool:
    """Whether the middle one is not below the line between its neighbours."""
    gain = (left.loss - middle.loss) * (right.bits - left.bits)
    return gain <= (left.loss - right.loss) * (middle.bits - left.bits)
