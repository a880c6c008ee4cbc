"""Rebuilds a layer's code from its stored tensors."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vqzoo.artifact.schema import (
    SEPARATOR,
    CodeEntry,
    FloatsEntry,
    IndicesEntry,
    LayerEntry,
)
from vqzoo.errors import ArtifactError, UsageError, one_line
from vqzoo.plugin.files import FILE_PREFIX

if TYPE_CHECKING:  # torch and the plugins are not needed to look at headers
    from torch import Tensor

    from vqzoo.plugin.code import MethodCode, Part
    from vqzoo.plugin.manager import Plugins


def build_code(
    key: str, entry: LayerEntry, tensors: "Mapping[str, Tensor]", plugins: "Plugins"
) -> "MethodCode":
    """A layer's code from its stored tensors.

    Raises:
        ArtifactError: the method is not installed, or the tensors are not what the entry says.
    """
    from vqzoo.artifact.encode import tensors_sha256

    if tensors_sha256(tensors) != entry.sha256:
        raise ArtifactError(f"the stored parts of {key!r} do not have the checksum of the header")
    return _build(key, entry.code, key + SEPARATOR, tensors, plugins)


def _build(
    key: str, entry: CodeEntry, prefix: str, tensors: "Mapping[str, Tensor]", plugins: "Plugins"
) -> "MethodCode":
    from vqzoo.plugin.code import Code, MethodCode

    name = _installed_method(key, entry, plugins)
    parts = {
        part: _build_part(prefix + part, spec, tensors[prefix + part], plugins)
        for part, spec in entry.parts.items()
    }
    children = {
        child: _build(key, inner, f"{prefix}{child}.", tensors, plugins)
        for child, inner in entry.children.items()
    }
    code = Code(entry.shape, parts, entry.facts, children)
    try:
        plugins.method(name).item.check(code)
    except Exception as error:  # a plugin's code on a stranger's data
        raise ArtifactError(f"{key!r}: {one_line(error)}") from error
    return MethodCode(name, code)


def _installed_method(key: str, entry: CodeEntry, plugins: "Plugins") -> str:
    """The registered name of the method that an entry names; nothing is imported for it."""
    for name in (f"{entry.plugin}:{entry.method}", entry.method):
        bare = name.rpartition(":")[2]
        if bare not in plugins.quantizers.names() + plugins.transforms.names():
            break
        try:
            found = plugins.method(name)
        except UsageError:
            continue
        if found.item.version != entry.method_version:
            raise ArtifactError(
                f"{key!r} was made by version {entry.method_version!r:.40} of {found.name}; "
                f"version {found.item.version} is installed"
            )
        return name
    if entry.plugin.startswith(FILE_PREFIX):
        file = entry.plugin.removeprefix(FILE_PREFIX)
        raise ArtifactError(
            f"{key!r} needs method {entry.method!r:.80} of the plugin file {file!r:.80}: "
            "give that file with --plugin, or as vqzoo.load(..., plugins=[...])"
        )
    raise ArtifactError(
        f"{key!r} needs method {entry.method!r:.80}, which no installed plugin brings; the "
        f"artifact says it comes from the package {entry.plugin!r:.80} (its word only)"
    )


def _build_part(
    name: str, spec: IndicesEntry | FloatsEntry, tensor: "Tensor", plugins: "Plugins"
) -> "Part":
    import torch

    from vqzoo.plugin.code import Floats, Indices

    if isinstance(spec, FloatsEntry):
        if not torch.isfinite(tensor).all():
            raise ArtifactError(f"{name!r} holds NaN or infinite values")
        return Floats(tensor, spec.exponent)
    if spec.packing not in plugins.packings.names():
        raise ArtifactError(f"{name!r} is packed by {spec.packing!r:.80}, which is not installed")
    packing = plugins.packings.get(spec.packing).item
    if packing.version != spec.packing_version:
        raise ArtifactError(f"{name!r} is packed by another version of {packing.name}")
    count = math.prod(spec.shape)
    try:
        values = packing.unpack(tensor, spec.cardinality, count)
    except Exception as error:  # a plugin's code on a stranger's data
        raise ArtifactError(f"{name!r}: {one_line(error)}") from error
    if values.shape != (count,):
        raise ArtifactError(f"{name!r} holds {values.numel()} codes where {count} are promised")
    if count and not 0 <= int(values.min()) <= int(values.max()) < spec.cardinality:
        raise ArtifactError(f"{name!r} has codes past its {spec.cardinality} symbols")
    return Indices(values.reshape(spec.shape), spec.cardinality).as_read()
