"""The size of an artifact's weights file, computed from its header and its tensors' sizes."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.rest import stored_rest
from vqzoo.artifact.schema import Rest
from vqzoo.artifact.writer import file_bytes, metadata_text, untouched_tensors

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


def network_bytes(
    model: nn.Module, layers: Sequence[EncodedLayer], rest: Rest, features: Sequence[str] = ()
) -> int:
    """Size in bytes of the `vqzoo.safetensors` that holds these layers, and all else of a network.

    Args:
        model: the network.
        layers: the compressed weights.
        rest: how tensors that stay dense are stored.
        features: as `write_artifact` takes them.
    """
    dense, aliases = untouched_tensors(model, {layer.key for layer in layers})
    return artifact_bytes(stored_rest(dense, rest), aliases, layers, features)
