"""Convex hulls of (bits, loss), against every combination of a few layers' offers."""

import itertools
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from vqzoo.budget.hull import cheapest, lower_hull


class Way(NamedTuple):
    bits: int
    loss: float


WAYS = st.lists(
    st.builds(Way, st.integers(1, 40), st.integers(0, 40).map(float)), min_size=1, max_size=6
)
NETWORKS = st.lists(WAYS, min_size=1, max_size=4)
PRICES = st.integers(1, 400).map(lambda count: count / 64)


def total(ways: tuple[Way, ...]) -> Way:
    return Way(sum(way.bits for way in ways), sum(way.loss for way in ways))


@given(layers=NETWORKS, price=PRICES)
def test_the_cheapest_of_each_layer_are_the_best_combination(
    layers: list[list[Way]], price: float
) -> None:
    chosen = total(tuple(cheapest(lower_hull(ways), price) for ways in layers))
    every = [total(ways) for ways in itertools.product(*layers)]
    assert chosen.loss + price * chosen.bits == min(way.loss + price * way.bits for way in every)
    assert chosen.loss == min(way.loss for way in every if way.bits <= chosen.bits)
    assert chosen.bits == min(way.bits for way in every if way.loss <= chosen.loss)


@given(ways=WAYS)
def test_a_hull_has_the_offers_that_some_price_makes_the_cheapest(ways: list[Way]) -> None:
    hull = lower_hull(ways)
    # Prices at which two offers cost the same, and those between them: nothing changes elsewhere.
    equal = {(a.loss - b.loss) / (b.bits - a.bits) for a in ways for b in ways if a.bits != b.bits}
    corners = sorted(price for price in equal if price > 0)
    between = [(low + high) / 2 for low, high in itertools.pairwise([0.0, *corners])]
    prices = [*between, (corners[-1] if corners else 0.0) + 1]
    best = {cheapest(sorted(ways), price) for price in prices}
    assert set(hull) == best
    assert [way.bits for way in hull] == sorted({way.bits for way in hull})
    slopes = [(a.loss - b.loss) / (b.bits - a.bits) for a, b in itertools.pairwise(hull)]
    assert all(slope > 0 for slope in slopes)
    assert slopes == sorted(slopes, reverse=True)
