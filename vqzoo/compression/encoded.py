"""A compressed layer as a file will hold it."""

import torch

from vqzoo.artifact.encode import EncodedLayer, encode_layer
from vqzoo.compression.layer import CompressedLayer
from vqzoo.compression.view import weight_key
from vqzoo.plugin.manager import Plugins


def encode_compressed(
    layer: CompressedLayer, dtype: torch.dtype, packing: str | None, plugins: Plugins
) -> EncodedLayer:
    """Pack the codes of a compressed layer.

    Args:
        layer: the layer.
        dtype: of the dense weight.
        packing: name of the packing for integer codes; None for that of each method.
        plugins: the plugins that provide methods and packings.

    Raises:
        PluginError: the packing failed, or is not lossless.
    """
    return encode_layer(
        weight_key(layer.layer.name),
        layer.layer.shape,
        dtype,
        layer.compressed,
        layer.options,
        packing,
        plugins,
        [(step.name, step.options) for step in layer.transforms],
    )
