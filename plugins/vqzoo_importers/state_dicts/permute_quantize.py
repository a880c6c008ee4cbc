"""Files of "Permute, Quantize, and Fine-tune" (Martinez et al. 2021): sub-vectors, row by row."""

from pathlib import Path

from torch import Tensor

from vqzoo.errors import VqzooError
from vqzoo.plugin import ImportedNetwork, Importer, ImportTarget, MethodCode
from vqzoo_importers.norms import unit_statistics
from vqzoo_importers.state_dicts.torch_file import read_mapping, refuse_detector
from vqzoo_importers.state_dicts.vectors import product_code

_CODES, _CODEBOOK = ".codes_matrix", ".codebook"


class PermuteQuantizeFinetune(Importer):
    """A flat state dict in which NAME.codes_matrix (out, blocks) and NAME.codebook (k, d) stand for
    NAME.weight. The permutations of its channels are in the codes."""

    name = "permute-quantize-finetune"
    summary = "state dicts (.pth) of uber-research/permute-quantize-finetune"
    source = "Martinez et al. 2021, arXiv 2010.15703"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Codes become pq with one codebook for the layer; batch norms whose statistics the file
        lacks, being folded, get mean 0 and variance 1."""
        tensors = read_mapping(path)
        refuse_detector(path, tensors)
        for key, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise VqzooError(f"{path}: {key} is a {type(tensor).__name__}, not a tensor")
        layers: dict[str, MethodCode] = {}
        for name in [key.removesuffix(_CODES) for key in tensors if key.endswith(_CODES)]:
            where = f"{path}: {name}"
            codes, codebook = tensors.pop(name + _CODES), tensors.pop(name + _CODEBOOK, None)
            layer = target.layers.get(f"{name}.weight")
            if codebook is None:
                raise VqzooError(f"{where} has codes but no codebook")
            if layer is None:
                raise VqzooError(f"{where} is compressed, and the network has no such layer")
            if layer.kind.startswith("conv_transpose"):
                raise VqzooError(f"{where} is a transposed convolution, which is not imported")
            if codes.dim() != 2:
                raise VqzooError(f"{where}: codes of shape {tuple(codes.shape)} are no matrix")
            layers[f"{name}.weight"] = product_code(codes.T, codebook, layer.matrix_shape, where)
        return ImportedNetwork(layers, tensors | unit_statistics(tensors, target))
