"""The conformance kit finds each way in which a layer selector breaks the contract."""

from collections.abc import Mapping
from typing import Any

import pytest
from broken_rules import broken_rules

from vqzoo.plugin import LayerInfo, LayerSelector
from vqzoo.testing import check_selector


class Widest(LayerSelector):
    """The layers with the most columns: sound."""

    name = "widest"
    summary = "the layers with the most columns"

    def select(self, layers: Any, text: str) -> Mapping[str, str]:
        most = max((layer.matrix_shape[1] for layer in layers), default=0)
        return {layer.name: f"{most} columns" for layer in layers if layer.matrix_shape[1] == most}


class Deaf(Widest):
    def accepts(self, text: str) -> bool:
        return False


class Inventive(Widest):
    def select(self, layers: Any, text: str) -> Mapping[str, str]:
        return {"no.such.layer": "why not"}


class Speechless(Widest):
    def select(self, layers: Any, text: str) -> Mapping[str, str]:
        return {layer.name: "" for layer in layers}


class Blind(Widest):
    def select(self, layers: Any, text: str) -> Mapping[str, str]:
        return {}


class Fickle(Widest):
    count = 0

    def select(self, layers: Any, text: str) -> Mapping[str, str]:
        self.count += 1
        if not layers:
            return {}
        layer: LayerInfo = layers[self.count % len(layers)]
        return {layer.name: "its turn"}


@pytest.mark.parametrize(
    ("selector", "rule"),
    [
        (Deaf, "it accepts the text"),
        (Inventive, "it chooses only given layers: it chose 'no.such.layer'"),
        (Speechless, "without a reason"),
        (Blind, "it chooses something"),
        (Fickle, "selection is deterministic"),
    ],
)
def test_a_broken_selector_is_reported_with_the_rule(
    selector: type[LayerSelector], rule: str
) -> None:
    check_selector(Widest)
    with pytest.raises(ExceptionGroup) as caught:
        check_selector(selector)
    assert any(rule in text for text in broken_rules(caught)), broken_rules(caught)
