"""Shell completion."""


def complete_method(incomplete: str) -> list[str]:
    """The names of methods that begin with the typed text, or with what follows its last comma."""
    from vqzoo.plugin.manager import installed_plugins

    before, comma, begun = incomplete.rpartition(",")
    names = installed_plugins().quantizers.names()
    return [before + comma + name for name in names if name.startswith(begun)]
