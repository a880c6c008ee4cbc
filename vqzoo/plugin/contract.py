"""The version of the contract that plugins are written for."""

from typing import Any

CONTRACT_VERSION = 1
OLDEST_CONTRACT = 1
STATEMENT = "vqzoo_contract"


class IncompatiblePlugin(Exception):
    """A plugin was written for a contract that this vqzoo does not speak."""


def check_contract(plugin: Any) -> None:
    """Refuse a plugin whose module says `vqzoo_contract = N` with an N that is not spoken here.

    A plugin that says nothing is taken to be written for version 1.

    Raises:
        IncompatiblePlugin: what it was written for, and what to upgrade.
    """
    stated = getattr(plugin, STATEMENT, 1)
    if type(stated) is not int:
        raise IncompatiblePlugin(f"{STATEMENT} is {stated!r:.40}, not the number of a version")
    if stated > CONTRACT_VERSION:
        raise IncompatiblePlugin(
            f"it was written for contract {stated}, newer than {CONTRACT_VERSION}, "
            "which this vqzoo speaks: upgrade vqzoo"
        )
    if stated < OLDEST_CONTRACT:
        raise IncompatiblePlugin(
            f"it was written for contract {stated}; this vqzoo speaks "
            f"{OLDEST_CONTRACT} to {CONTRACT_VERSION}: upgrade the plugin"
        )
