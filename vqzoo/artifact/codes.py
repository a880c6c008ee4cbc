"""Rebuild a layer's code from its stored tensors."""

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

if TYPE_CHECKING:  # reading headers needs neither torch nor the plugins
    from torch import Tensor

    from vqzoo.plugin.code import MethodCode, Part
    from vqzoo.plugin.manager import Plugins


def build_code(
    key: str, entry: LayerEntry, tensors: "Mapping[str, Tensor]", plugins: "Plugins"
) -> "MethodCode":
    """Rebuild a layer's code from its stored tensors.

    Raises:
        ArtifactError: the method is not installed, or the tensors do not match the entry.
    """
    from vqzoo.artifact.encode import tensors_sha256

    if tensors_sha256(tensors) != entry.sha256:
        raise ArtifactError(f"the stored parts of {key!r} do not match their checksum")
    return _build(key, entry.code, key + SEPARATOR, tensors, plugins)


def _build(
    key: str, entry: CodeEntry, prefix: str, tensors: "Mapping[str, Tensor]", plugins: "Plugins"
) -> "MethodCode":
    from vqzoo.plugin.code import Code, MethodCode

    method = _installed_method(key, entry, plugins)
    parts = {
        part: _build_part(prefix + part, spec, tensors[prefix + part], plugins)
        for part, spec in entry.parts.items()
    }
    children = {
        child: _build(key, inner, f"{prefix}{child}.", tensors, plugins)
        for child, inner in entry.children.items()
    }
    code = Code(entry.shape, parts, entry.facts, children)
    item = plugins.method(method).item
    try:
        item.check(code)
        needed = item.version_of(code)
    except Exception as error:  # a plugin's code on untrusted data
        raise ArtifactError(f"{key!r}: {one_line(error)}") from error
    if needed != entry.method_version:
        raise ArtifactError(
            f"{key!r} holds a code of version {needed} of {entry.method}, and declares version "
            f"{entry.method_version!r:.40}"
        )
    return MethodCode(method, code)


def _installed_method(key: str, entry: CodeEntry, plugins: "Plugins") -> str:
    """The registered name of an entry's method; nothing is imported for it.

    Raises:
        ArtifactError: the method is not installed, or another version of it is.
    """
    for name in (f"{entry.plugin}:{entry.method}", entry.method):
        bare = name.rpartition(":")[2]
        if bare not in plugins.quantizers.names() + plugins.transforms.names():
            break
        try:
            registered = plugins.method(name)
        except UsageError:
            continue
        if entry.method_version not in (registered.item.version, *registered.item.earlier):
            raise ArtifactError(
                f"{key!r} was compressed by version {entry.method_version!r:.40} of "
                f"{registered.name}; version {registered.item.version} is installed"
            )
        return name
    if entry.plugin.startswith(FILE_PREFIX):
        file = entry.plugin.removeprefix(FILE_PREFIX)
        raise ArtifactError(
            f"{key!r} needs method {entry.method!r:.80} of the plugin file {file!r:.80}: "
            "pass that file with --plugin or vqzoo.load(..., plugins=[...])"
        )
    raise ArtifactError(
        f"{key!r} needs method {entry.method!r:.80}, which no installed plugin provides; the "
        f"artifact names the package {entry.plugin!r:.80} (unverified)"
        f"{plugins.quantizers.unloaded()}"
    )


def _build_part(
    name: str, spec: IndicesEntry | FloatsEntry, tensor: "Tensor", plugins: "Plugins"
) -> "Part":
    from vqzoo.numerics.arrays import all_finite
    from vqzoo.plugin.code import Floats, Indices

    if isinstance(spec, FloatsEntry):
        if not all_finite(tensor):
            raise ArtifactError(f"{name!r} holds NaN or infinite values")
        return Floats(tensor, spec.exponent)
    if spec.packing not in plugins.packings.names():
        raise ArtifactError(f"{name!r} uses packing {spec.packing!r:.80}, which is not installed")
    packing = plugins.packings.get(spec.packing).item
    if spec.packing_version not in (packing.version, *packing.earlier):
        raise ArtifactError(
            f"{name!r} was packed by version {spec.packing_version!r:.40} of {packing.name}; "
            f"version {packing.version} is installed"
        )
    part = tensor, spec.cardinality, tuple(spec.shape)
    try:
        if spec.packing_version == packing.version:
            values = packing.unpack_part(*part)
        else:
            values = packing.unpack_earlier(spec.packing_version, *part)
    except Exception as error:  # a plugin's code on untrusted data
        raise ArtifactError(f"{name!r}: {one_line(error)}") from error
    if values.shape != tuple(spec.shape):
        count = math.prod(spec.shape)
        raise ArtifactError(f"{name!r} holds {values.numel()} codes instead of {count}")
    if values.numel():
        low, high = values.aminmax()
        if not 0 <= int(low) <= int(high) < spec.cardinality:
            raise ArtifactError(f"{name!r} holds codes that are not below {spec.cardinality}")
    return Indices(values, spec.cardinality).as_read()
