"""Names of methods: qualified, ambiguous and unknown."""

import warnings

import pytest
from installing import GOOD, Install

from vqzoo.errors import UsageError
from vqzoo.plugin.manager import Plugins, load_plugins


@pytest.fixture
def clash(install: Install) -> Plugins:
    """`same` claimed by two distributions, `mine` by one."""
    both = GOOD.replace("[Whole()]", "[Whole(), Mine()]") + (
        "\nclass Mine(Whole):\n    name = 'mine'\n"
    )
    points = install("dist-a", plugina=both.format(method="same"))
    points += install("dist-b", pluginb=GOOD.format(method="same"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_plugins(points)


def test_a_name_claimed_twice_is_ambiguous_only_when_used_bare(clash: Plugins) -> None:
    with pytest.raises(UsageError, match="dist-a:same or dist-b:same"):
        clash.quantizers.get("same")
    assert clash.quantizers.get("dist-a:same").origin.distribution == "dist-a"
    assert clash.quantizers.get("dist-b:same").origin.distribution == "dist-b"
    assert clash.quantizers.get("mine").name == "mine"
    assert set(clash.quantizers.clashes()) == {"same"}
    with pytest.raises(UsageError, match="no method called 'dist-c:same'"):
        clash.quantizers.get("dist-c:same")


def test_a_name_claimed_twice_by_one_distribution(install: Install) -> None:
    points = install("twice", p1=GOOD.format(method="same"), p2=GOOD.format(method="same"))
    with pytest.raises(UsageError, match="claimed twice by twice"):
        load_plugins(points).quantizers.get("twice:same")


def test_a_transform_and_a_quantizer_of_one_name(install: Install) -> None:
    transform = """
from vqzoo.plugin import Code, Transform, hookimpl

class Same(Transform):
    name = "same"
    def forward(self, weight, options, context):
        return weight, Code(tuple(weight.shape), {})
    def reconstruct(self, code, params):
        return params["weight"]

@hookimpl
def vqzoo_transforms():
    return [Same()]
"""
    points = install("dist-q", pluginq=GOOD.format(method="same"))
    points += install("dist-t", plugint=transform)
    plugins = load_plugins(points)
    assert plugins.quantizers.get("same").origin.distribution == "dist-q"
    assert plugins.transforms.get("same").origin.distribution == "dist-t"
    assert plugins.method("dist-q:same").origin.distribution == "dist-q"
    assert plugins.method("dist-t:same").origin.distribution == "dist-t"


def test_an_unknown_name_gives_close_matches_and_the_list(clash: Plugins) -> None:
    with pytest.raises(UsageError) as caught:
        clash.quantizers.get("sme")
    assert "did you mean same?" in str(caught.value)
    assert "mine, same" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_plugins_an_unknown_name_says_that_no_plugin_provides_any() -> None:
    with pytest.raises(UsageError, match="no plugin provides any"):
        load_plugins([]).quantizers.get("anything")
