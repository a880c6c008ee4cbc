"""Files of "And the bit goes down" (Stock et al. 2020): codes of sub-vectors, block by block."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vqzoo.errors import VqzooError
from vqzoo.plugin import ImportedNetwork, Importer, ImportTarget, LayerInfo, MethodCode
from vqzoo_importers.norms import unit_statistics
from vqzoo_importers.state_dicts.torch_file import read_mapping, refuse_detector
from vqzoo_importers.state_dicts.vectors import product_code

_FIELDS = {"centroids", "assignments", "n_blocks", "is_conv", "k"}  # of a compressed layer
_BIAS = "_bias"  # ends the name under which a bias stands beside its compressed layer


class KillTheBits(Importer):
    """A mapping from module paths to mappings, of tensors or of the five fields of a compressed
    layer. Code block·out + row is that of a row's sub-vector in a block."""

    name = "kill-the-bits"
    summary = "state dicts (.pth) of facebookresearch/kill-the-bits"
    source = "Stock et al. 2020, arXiv 1907.05686"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Codes become pq with one codebook for the layer; batch norms get mean 0, variance 1."""
        layers: dict[str, MethodCode] = {}
        tensors: dict[str, Tensor] = {}
        content = read_mapping(path)
        refuse_detector(path, content)
        for name, fields in content.items():
            where = f"{path}: {name}"
            if not isinstance(fields, Mapping):
                raise VqzooError(f"{where} is a {type(fields).__name__}, not a layer's mapping")
            if "centroids" in fields:
                key = f"{name}.weight"
                layers[key] = _layer(fields, target.layers.get(key), where)
                continue
            for field, tensor in fields.items():
                if not isinstance(tensor, Tensor):
                    raise VqzooError(f"{where}: {field!r} is no tensor")
                tensors[f"{_module(name, field, target)}.{field}"] = tensor
        return ImportedNetwork(layers, tensors | unit_statistics(tensors, target))


def _module(name: str, field: str, target: ImportTarget) -> str:
    """The module that a tensor belongs to: that of `fc_bias`, bias, is fc."""
    owner = name.removesuffix(_BIAS)
    return owner if field == "bias" and f"{owner}.bias" in target.shapes else name


def _layer(fields: Mapping[str, Any], layer: LayerInfo | None, where: str) -> MethodCode:
    if layer is None:
        raise VqzooError(f"{where} is compressed, and the network has no such layer")
    if missing := _FIELDS - fields.keys():
        raise VqzooError(f"{where} has no {', '.join(sorted(missing))}")
    centroids, assignments = fields["centroids"], fields["assignments"]
    if not (isinstance(centroids, Tensor) and isinstance(assignments, Tensor)):
        raise VqzooError(f"{where}: its centroids and assignments are not tensors")
    kernel = (fields["k"],) * 2 if fields["is_conv"] is True else ()
    if layer.shape[2:] != kernel:
        raise VqzooError(
            f"{where} is for a kernel {kernel or '(none)'}, the network's is {layer.shape[2:]}"
        )
    blocks, (m, n) = fields["n_blocks"], layer.matrix_shape
    if type(blocks) is not int or tuple(assignments.shape) != (blocks * m,):
        raise VqzooError(
            f"{where}: {tuple(assignments.shape)} assignments are not n_blocks={blocks!r:.20} "
            f"times {m} rows"
        )
    return product_code(assignments.view(blocks, m), centroids, (m, n), where)
