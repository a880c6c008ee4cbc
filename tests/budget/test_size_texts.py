"""Sizes as `--size` takes them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqzoo.budget.file_size import parse_size, size_text
from vqzoo.errors import UsageError
from vqzoo.runs.recipe import make_recipe

COUNTS = st.integers(1, 10**15)


@given(COUNTS)
def test_a_size_reads_as_it_was_written(count: int) -> None:
    assert parse_size(size_text(count)) == count
    assert parse_size(str(count)) == count


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from([("kB", 3), ("MB", 6)]))
def test_units_are_powers_of_ten(whole: int, thousandths: int, unit: tuple[str, int]) -> None:
    name, power = unit
    count = (whole * 1000 + thousandths) * 10 ** (power - 3)
    text = f"{whole}.{thousandths:03}{name}"
    if count:
        assert parse_size(text) == parse_size(f"{whole}.{thousandths:03} {name}") == count


@given(st.text(max_size=12))
def test_a_text_is_a_size_or_a_problem_in_one_line(text: str) -> None:
    if re.fullmatch(r"\s*[0-9]+(\.[0-9]+)? ?(B|kB|KB|MB|GB)?\s*", text) and text.strip("0. kKMGB"):
        assert parse_size(text) >= 0
        return
    with pytest.raises(ValueError, match=r"2\.3MB") as problem:
        parse_size(text)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "text", ["", "MB", "-1", "0", "2,3MB", "1e6", "2 MiB", "2mb", "nan", "0.2", "9" * 40]
)
def test_whatever_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="size: "):
        make_recipe({"model": "test_resnet", "size": text})


@pytest.mark.parametrize("value", [2300000, "2.3MB", "2300 kB", "2300000B"])
def test_recipes_hold_one_text_for_one_size(value: int | str) -> None:
    assert make_recipe({"model": "test_resnet", "size": value}).size == "2.3MB"
