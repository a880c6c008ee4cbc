"""The version of the contract, and the check that a plugin was written for a supported one."""

from typing import Any

CONTRACT_VERSION = 1
OLDEST_CONTRACT = 1
VARIABLE = "vqzoo_contract"  # of a plugin's module


class IncompatiblePlugin(Exception):
    """A plugin was written for a version of the contract that this vqzoo does not support."""


def check_contract(plugin: Any) -> None:
    """Refuse a plugin whose module sets `vqzoo_contract` to a version that is not supported.

    A plugin that does not set it counts as written for version 1.

    Raises:
        IncompatiblePlugin: the version is not supported; the message says what to upgrade.
    """
    version = getattr(plugin, VARIABLE, 1)
    if type(version) is not int:
        raise IncompatiblePlugin(f"{VARIABLE} is {version!r:.40}, not a version number")
    if version > CONTRACT_VERSION:
        raise IncompatiblePlugin(
            f"the plugin was written for contract {version}, this vqzoo supports up to "
            f"{CONTRACT_VERSION}: upgrade vqzoo"
        )
    if version < OLDEST_CONTRACT:
        raise IncompatiblePlugin(
            f"the plugin was written for contract {version}, this vqzoo supports "
            f"{OLDEST_CONTRACT} to {CONTRACT_VERSION}: upgrade the plugin"
        )
