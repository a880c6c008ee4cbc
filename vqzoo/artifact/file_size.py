"""The size of an artifact's weights file, computed from its header and its tensors' sizes."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.writer import file_bytes, metadata_text

_ANY_SHA256 = "0" * 64  # every sha256 is as long


def artifact_bytes(
    dense: Mapping[str, Tensor],
    aliases: Mapping[str, str],
    layers: Sequence[EncodedLayer],
    features: Sequence[str] = (),
) -> int:
    """Size in bytes of the `vqzoo.safetensors` that `write_artifact` makes; no value is read.

    Args:
        dense: the tensors that stay dense, as `untouched_tensors` gives them. They, and those of
            `layers`, may be on the meta device.
        aliases: keys that share the tensor of another key.
        layers: the compressed weights.
        features: as `write_artifact` takes them.
    """
    tensors = dict(dense)
    for layer in layers:
        tensors |= layer.tensors
    metadata = metadata_text(layers, aliases, _ANY_SHA256, _ANY_SHA256, features)
    return file_bytes(tensors, {"vqzoo": metadata})
