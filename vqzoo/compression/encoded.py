"""A compressed layer as a file will hold it."""

from torch import nn

from vqzoo.artifact.encode import EncodedLayer, encode_layer
from vqzoo.compression.layer import CompressedLayer
from vqzoo.compression.view import weight_key
from vqzoo.plugin.manager import Plugins


def encode_compressed(
    model: nn.Module, layer: CompressedLayer, packing: str | None, plugins: Plugins
) -> EncodedLayer:
    """Pack the codes of a compressed layer.

    Args:
        model: the network; the layer's weight has its dtype there.
        layer: the layer.
        packing: name of the packing for integer codes; None for that of each method.
        plugins: the plugins that provide methods and packings.

    Raises:
        PluginError: the packing failed, or is not lossless.
    """
    key = weight_key(layer.layer.name)
    return encode_layer(
        key,
        layer.layer.shape,
        model.get_parameter(key).dtype,
        layer.compressed,
        layer.options,
        packing,
        plugins,
        [(step.name, step.options) for step in layer.transforms],
    )
