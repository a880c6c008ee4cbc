"""Registers architectures with timm's registry: vqzoo's own and those of plugins."""

from weakref import WeakValueDictionary

from vqzoo.plugin.manager import Plugins, installed_plugins

_registered: WeakValueDictionary[int, Plugins] = WeakValueDictionary()  # by id


def register_models(plugins: Plugins | None = None) -> None:
    """Add vqzoo's architectures, and those that plugins bring, to timm's registry.

    vqzoo's commands and functions do so themselves. Call it before you hand a name such as
    "alexnet_mini.fmnist" to timm directly, or let timm open the folder that `vqzoo export --to
    dense` wrote of such a network. Further calls do nothing.

    Args:
        plugins: the plugins to ask for models; the installed ones by default.

    Example:
        >>> import timm, vqzoo
        >>> vqzoo.register_models()
        >>> model = timm.create_model("alexnet_mini.fmnist", pretrained=True)
    """
    import vqzoo.models.architectures.alexnet
    import vqzoo.models.architectures.alexnet_mini
    import vqzoo.models.architectures.mobilenet_mini
    import vqzoo.models.architectures.squeezenet
    import vqzoo.models.architectures.vit_mini  # noqa: F401

    plugins = installed_plugins() if plugins is None else plugins
    if id(plugins) not in _registered:
        _registered[id(plugins)] = plugins
        plugins.notify("vqzoo_models")
