"""Codes that move: `reassign` of km, pq and rq beside all single moves, tried one by one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vqzoo_vq import ScalarKMeans

import vqzoo
from vqzoo.compression.decode import decode
from vqzoo.compression.plugin_calls import reassigned
from vqzoo.errors import PluginError
from vqzoo.plugin import Code, Indices, MethodCode
from vqzoo.plugin.manager import installed_plugins

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "km": ("km", {"k": 3}),
    "km-without-scales": ("km", {"k": 4, "scale": "none"}),
    "pq-with-a-tail": ("pq", {"k": 4, "d": 3}),
    "pq-by-rows": ("pq", {"k": 4, "d": 2, "axis": "rows"}),
    "pq-by-blocks": ("pq", {"k": 3, "d": 5, "codebook": "block"}),
    "rq-with-a-tail": ("rq", {"k": 3, "d": 4, "stages": 2}),
}


def compressed(method: str, options: dict[str, Any]) -> MethodCode:
    torch.manual_seed(0)
    small = vqzoo.compress(nn.Linear(10, 6), method, layers="all", **options)
    return small.layers[0].compressed


def model_of(code: MethodCode) -> tuple[Tensor, Tensor]:
    """A gradient and a curvature."""
    torch.manual_seed(1)
    return 5 * torch.randn(code.code.shape), 4 * torch.rand(code.code.shape) + 1


def single_moves(code: MethodCode) -> Iterator[MethodCode]:
    """Every code with one other integer."""
    for name, part in code.code.parts.items():
        if not isinstance(part, Indices):
            continue
        for place in range(part.values.numel()):
            for value in range(part.cardinality):
                values = part.values.clone()
                values.view(-1)[place] = value
                parts = {**code.code.parts, name: replace(part, values=values)}
                yield replace(code, code=replace(code.code, parts=parts))


def changes(one: MethodCode, other: MethodCode) -> int:
    parts = [name for name, part in one.code.parts.items() if isinstance(part, Indices)]
    return sum(int((one.code.indices(n) != other.code.indices(n)).sum()) for n in parts)


@pytest.mark.parametrize("case", CASES)
def test_the_moves_that_promise_most_are_made(case: str) -> None:
    code, plugins = compressed(*CASES[case]), installed_plugins()
    slope, bend = model_of(code)
    before = decode(code, plugins)

    def promise(moved: MethodCode) -> float:
        change = decode(moved, plugins) - before
        return float((slope * change + bend * change.square() / 2).sum())

    floats = code.code.floats()
    best = min(promise(moved) for moved in single_moves(code))
    assert best < -1e-3
    one = reassigned(code, floats, slope, bend, 1e-9, plugins)
    assert one is not None
    assert changes(code, one) == 1
    assert promise(one) == pytest.approx(best, rel=1e-3)
    several = reassigned(code, floats, slope, bend, 0.1, plugins)
    assert several is not None
    codes = sum(p.values.numel() for p in code.code.parts.values() if isinstance(p, Indices))
    assert 1 < changes(code, several) <= -(-codes // 10)
    assert promise(several) < best
    assert reassigned(code, floats, 0 * slope, bend, 0.1, plugins) is None  # nothing is better


def test_a_method_that_changes_more_than_integers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, plugins = compressed("km", {"k": 3}), installed_plugins()

    def reassign(self: Any, code: Code, *rest: Any) -> Code:
        part = code.parts["codebook"]
        return replace(code, parts={**code.parts, "codebook": replace(part, exponent=1)})

    monkeypatch.setattr(ScalarKMeans, "reassign", reassign)
    with pytest.raises(PluginError, match="changed more than the integers"):
        reassigned(code, code.code.floats(), *model_of(code), 0.1, plugins)
