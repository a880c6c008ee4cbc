"""The search for the last place within a limit, on functions whose answer is known."""

import math

from hypothesis import given
from hypothesis import strategies as st

from vqzoo.budget.search import Point, Question, last_within

LOW, HIGH = -30.0, 30.0
NEAR = 0.01


def search(gap, first: float, slope: float) -> tuple[Point | None, list[float]]:
    places: list[float] = []

    def gap_at(place: float) -> float:
        places.append(place)
        return gap(place)

    question = Question(low=LOW, high=HIGH, first=first, slope=slope, near=NEAR)
    return last_within(question, gap_at), places


@given(
    root=st.floats(-15, 15),
    bend=st.floats(0.05, 3),
    steepness=st.floats(0.05, 5),
    first=st.floats(-20, 20),
)
def test_smooth_gaps_are_closed_in_few_measurements(
    root: float, bend: float, steepness: float, first: float
) -> None:
    """Sizes over prices: nearly exponential at one end, nearly linear at the other."""

    def gap(place: float) -> float:
        bent = math.log1p(math.exp(bend * (place - root))) / math.log(2)
        return steepness * math.log(bent)

    point, places = search(gap, first, 0.35)
    assert point is not None
    assert -NEAR <= gap(point.place) <= 0 or point.place == HIGH
    assert len(places) <= 16


@given(root=st.floats(-15, 15), first=st.floats(-20, 20))
def test_jumps_are_bisected(root: float, first: float) -> None:
    point, places = search(lambda place: 1.0 if place > root else -1.0, first, 1.0)
    assert point is not None
    assert root - 0.05 <= point.place <= root
    assert len(places) <= 24


@given(first=st.floats(-20, 20), slope=st.sampled_from([0.1, 1.0]))
def test_the_ends_are_tried_before_the_search_gives_up(first: float, slope: float) -> None:
    nothing, places = search(lambda place: 5 + place / 100, first, slope)
    assert nothing is None
    assert places[-1] == LOW
    everything, places = search(lambda place: -5 + place / 100, first, slope)
    assert everything is not None
    assert everything.place == places[-1] == HIGH


def test_gaps_that_are_not_finite_lie_beyond_the_limit() -> None:
    def gap(place: float) -> float:
        return math.inf if place > 3 else place - 2

    point, _ = search(gap, 9.0, 1.0)
    assert point is not None
    assert -NEAR <= point.gap <= 0
