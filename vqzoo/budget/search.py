"""The largest value that keeps a limit, by few and dear measurements of an increasing function."""

import math
from collections.abc import Callable
from dataclasses import dataclass

MOST = 24  # measurements
_NARROWEST = 1e-4  # bracket, of logarithms of prices
_LEAST_STEP, _LARGEST_STEP = 0.05, math.log(1e4)


@dataclass(frozen=True)
class Point:
    """A place that was measured; the limit is kept where the gap is at most 0."""

    place: float
    gap: float


@dataclass(frozen=True)
class Question:
    """What is searched for.

    Attributes:
        low: the lowest place.
        high: the highest place.
        first: where to begin.
        slope: of the gap, a guess for the second place.
        near: how far below 0 the gap of an answer may be.
        most: measurements.
    """

    low: float
    high: float
    first: float
    slope: float
    near: float
    most: int = MOST


def last_within(
    question: Question,
    gap_at: Callable[[float], float],
    enough: Callable[[float, float], bool] = lambda inside, outside: False,
) -> Point | None:
    """The highest place found whose gap is at most 0: by secants and bisection.

    Args:
        question: what is searched for.
        gap_at: measures the gap at a place; it increases with the place, but for noise.
        enough: whether a bracket from the first place, which keeps the limit, to the second, which
            does not, is narrow enough.

    Returns:
        The place and its gap; None if even the lowest place has a gap above 0.
    """
    inside: Point | None = None
    outside: Point | None = None
    before: Point | None = None
    one_side = 0  # measurements in a row on the same side of the limit
    place: float | None = min(max(question.first, question.low), question.high)
    for _ in range(question.most):
        assert place is not None
        point = Point(place, gap_at(place))
        same = before is not None and (before.gap <= 0) == (point.gap <= 0)
        one_side = one_side + 1 if same else 0
        if point.gap <= 0:
            inside = point
        else:
            outside = point
        if inside is not None and inside.gap >= -question.near:
            break
        if inside is None or outside is None:
            place = _beyond(question, point, before, stretch=1 << max(0, one_side - 1))
        elif enough(inside.place, outside.place) or outside.place - inside.place < _NARROWEST:
            break
        else:
            place = _between(question, inside, outside, bisect=one_side > 1)
        if place is None:
            break
        before = point
    return inside


def _beyond(question: Question, last: Point, before: Point | None, *, stretch: int) -> float | None:
    """The next place where all so far are on one side of the limit, by a step `stretch` times as
    long as a secant's; None at the end."""
    if not math.isfinite(last.gap):
        step = -math.log(4) * stretch
    else:
        slope = question.slope
        if before is not None and math.isfinite(before.gap):
            measured = (last.gap - before.gap) / (last.place - before.place)
            slope = measured if measured > 0 else slope
        step = stretch * (-question.near / 2 - last.gap) / slope
        step = math.copysign(min(max(abs(step), _LEAST_STEP), _LARGEST_STEP), step)
    place = min(max(last.place + step, question.low), question.high)
    return None if place == last.place else place


def _between(question: Question, inside: Point, outside: Point, *, bisect: bool) -> float:
    """The next place in a bracket: where a line crosses the limit, or the middle."""
    width = outside.place - inside.place
    if bisect or not math.isfinite(outside.gap - inside.gap):
        return inside.place + width / 2
    share = (-question.near / 2 - inside.gap) / (outside.gap - inside.gap)
    return inside.place + width * min(max(share, 0.05), 0.95)
