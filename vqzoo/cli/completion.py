"""Shell completion."""


def complete_method(incomplete: str) -> list[str]:
    """The names of methods that begin with the typed text."""
    from vqzoo.plugin.manager import installed_plugins

    names = installed_plugins().quantizers.names()
    return [name for name in names if name.startswith(incomplete)]
