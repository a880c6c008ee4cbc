"""The size of an artifact's weights file, computed from its header and its tensors' sizes."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.schema import Layout
from vqzoo.artifact.writer import file_bytes, file_contents

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
