"""Shell completion of names."""


def complete_method(incomplete: str) -> list[str]:
    """Methods that begin like this."""
    from vqzoo.plugin.manager import installed_plugins

    return [n for n in installed_plugins().quantizers.names() if n.startswith(incomplete)]
