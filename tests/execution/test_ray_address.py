"""What the engine `ray` says before it starts anything."""

import sys

import pytest

from vqzoo.errors import UsageError
from vqzoo.plugin import CallResources
from vqzoo.plugin.manager import installed_plugins

engine = installed_plugins().engines.get("ray").item


@pytest.mark.parametrize("address", ["10.0.0.1", "ray://head", "host:port", "a b:1", "http://a:1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"write ray, ray:auto, ray:local, ray:HOST:PORT"):
        engine.check(address)


@pytest.mark.parametrize(
    "rest", [",connect=0", ",connect=x", ",connect", ",wait=9", ",connect=1,connect=2"]
)
def test_a_deadline_that_is_none_is_refused(rest: str) -> None:
    with pytest.raises(UsageError, match="connect=SECONDS, a whole number"):
        engine.check(f"ray://head:10001{rest}")


@pytest.mark.parametrize(
    "address", ["connect=9", "auto,connect=9", "local,connect=9", "head:1,connect=9"]
)
def test_a_deadline_goes_with_the_server_for_clients(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="goes with an address ray://HOST:PORT alone"):
        engine.check(address)


def test_ray_address_may_name_the_server_for_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    for address in ("connect=9", "auto,connect=9"):
        with pytest.raises(UsageError, match="pip install"):  # the address itself is right
            engine.check(address)


def test_without_ray_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'vqzoo\[ray\]'"):
        engine.check("")


def test_parts_of_several_gpus_are_refused() -> None:
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match=r"a part of one GPU or whole ones, not 1.5"):
        engine.start("", CallResources(gpus=1.5))
