"""The size of an artifact's weights file, computed from its header and its tensors' sizes."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.rest import stored_rest
from vqzoo.artifact.schema import Layout, Rest
from vqzoo.artifact.writer import file_bytes, file_contents, untouched_tensors

_ANY_SHA256 = "0" * 64  # every sha256 is as long


def artifact_bytes(
    dense: Mapping[str, Tensor],
    aliases: Mapping[str, str],
    layers: Sequence[EncodedLayer],
    features: Sequence[str] = (),
    layout: Layout = "plain",
    norms: Mapping[str, str] | None = None,
) -> int:
    """Size in bytes of the `vqzoo.safetensors` that `write_artifact` makes.

    In the plain layout no value is read.

    Args:
        dense: the tensors that stay dense, as they are stored. In the plain layout they, and those
            of `layers`, may be on the meta device.
        aliases: keys that share the tensor of another key.
        layers: the compressed weights.
        features: as `write_artifact` takes them.
        layout: of the file.
        norms: as `write_artifact` takes them.
    """
    contents = file_contents(
        dense, aliases, layers, _ANY_SHA256, _ANY_SHA256, features, layout, norms, sizes_only=True
    )
    return file_bytes(contents.tensors, {"vqzoo": contents.text})


def network_bytes(
    model: nn.Module,
    layers: Sequence[EncodedLayer],
    rest: Rest,
    features: Sequence[str] = (),
    layout: Layout = "plain",
    norms: Mapping[str, str] | None = None,
) -> int:
    """Size in bytes of the `vqzoo.safetensors` that holds these layers, and all else of a network.

    Args:
        model: the network.
        layers: the compressed weights.
        rest: how tensors that stay dense are stored.
        features: as `write_artifact` takes them.
        layout: of the file.
        norms: as `write_artifact` takes them.
    """
    dense, aliases = untouched_tensors(model, {layer.key for layer in layers})
    return artifact_bytes(stored_rest(dense, rest), aliases, layers, features, layout, norms)
