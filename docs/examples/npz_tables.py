"""An importer of .npz files with a table and one code a weight: `NAME.table`, `NAME.codes`."""

from pathlib import Path

import numpy as np
import torch

from vqzoo.errors import VqzooError
from vqzoo.plugin import (
    Code,
    Floats,
    ImportedNetwork,
    Importer,
    ImportTarget,
    Indices,
    MethodCode,
    hookimpl,
)

vqzoo_contract = 1


class NpzTables(Importer):
    """The importer of `--from npz-tables`."""

    name = "npz-tables"
    summary = "numpy files with a table and codes for each layer"
    source = "numpy.savez"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Tables become the codebooks of km, without loss."""
        try:
            with np.load(path, allow_pickle=False) as file:  # objects would be executed
                arrays = {name: file[name] for name in file.files}
        except Exception as error:  # of a hostile file: anything
            raise VqzooError(f"{path} is no .npz file: {str(error).splitlines()[:1]}") from None
        layers = {}
        for key, layer in target.layers.items():
            name = key.removesuffix(".weight")
            codes, table = arrays.pop(f"{name}.codes", None), arrays.pop(f"{name}.table", None)
            if codes is None or table is None:
                continue  # the layer is dense, or vqzoo names the key that is missing
            if codes.shape != layer.matrix_shape or table.ndim != 1 or table.dtype != np.float32:
                raise VqzooError(f"{path}: the codes or the table of {name} do not fit it")
            parts = {
                "codes": Indices(torch.from_numpy(codes.astype(np.int64)), len(table)),
                "codebook": Floats(torch.from_numpy(table)),
            }
            layers[key] = MethodCode("km", Code(layer.matrix_shape, parts))
        return ImportedNetwork(layers, {name: torch.from_numpy(a) for name, a in arrays.items()})


@hookimpl
def vqzoo_importers() -> list[Importer]:
    """Register the importer."""
    return [NpzTables()]
