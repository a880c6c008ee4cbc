"""Every installed plugin passes the conformance kit."""

import pytest

from vqzoo.plugin.manager import installed_plugins
from vqzoo.testing import check_packing, check_quantizer, check_selector, check_transform

PLUGINS = installed_plugins()
TEXTS = {"largest": ("largest:2", "largest:99"), "pattern": ("head", "blocks.*", "pattern:*fc?")}


@pytest.mark.parametrize("name", PLUGINS.quantizers.names())
def test_quantizers(name: str) -> None:
    check_quantizer(PLUGINS.quantizers.get(name).item)


@pytest.mark.parametrize("name", PLUGINS.packings.names())
def test_packings(name: str) -> None:
    check_packing(PLUGINS.packings.get(name).item)


@pytest.mark.parametrize("name", PLUGINS.selectors.names())
def test_selectors(name: str) -> None:
    check_selector(PLUGINS.selectors.get(name).item, *TEXTS.get(name, ()))


@pytest.mark.parametrize("name", PLUGINS.transforms.names())
def test_transforms(name: str) -> None:
    check_transform(PLUGINS.transforms.get(name).item)
