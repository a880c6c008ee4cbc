"""What the engine `ray` says before it starts anything."""

import sys

import pytest

from vqzoo.errors import UsageError
from vqzoo.plugin.manager import installed_plugins

engine = installed_plugins().engines.get("ray").item


@pytest.mark.parametrize("address", ["10.0.0.1", "ray://head", "host:port", "a b:1", "http://a:1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"write ray, ray:auto, ray:local, ray:HOST:PORT"):
        engine.check(address)


def test_without_ray_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'vqzoo\[ray\]'"):
        engine.check("")
