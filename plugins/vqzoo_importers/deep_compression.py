"""Files of Deep Compression (Han, Mao, Dally 2016): shared values and gaps of pruned networks."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqzoo.errors import VqzooError
from vqzoo.numerics.coding.gaps import gaps_of
from vqzoo.plugin import (
    Code,
    Floats,
    ImportedNetwork,
    Importer,
    ImportTarget,
    Indices,
    LayerInfo,
    MethodCode,
)
from vqzoo_importers.coded.tables import TableTensor, exact_floats, table_code

_GAP_BITS = 4
_RGB = 3  # channels of the images that Caffe reads in the opposite order


class DeepCompression(Importer):
    """A count of entries for each layer, uint32; then for each layer, in order, its shared values,
    2^b float32, its biases, float32, and for each entry a code of b bits and a gap of 4.

    b is 8 in convolutions and 4 in linear layers; two values of 4 bits share a byte, the first in
    its lower half. A gap counts the zeros before an entry; entries with code 0, which is the value
    zero, bridge more zeros than a gap can count.
    """

    name = "deep-compression"
    summary = "binary files (.net) of Deep Compression, as of the authors' SqueezeNet and AlexNet"
    source = "Han, Mao, Dally 2016, arXiv 1510.00149"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Codes become deep-compression, or km in layers whose code 0 is not zero. The first
        convolution reads RGB instead of Caffe's BGR."""
        data = _Bytes(path, _content(path, target))
        counts = data.take("<u4", len(target.layers), "the counts of entries")
        layers: dict[str, MethodCode] = {}
        tensors: dict[str, Tensor] = {}
        notes: list[str] = []
        for (key, layer), count in zip(target.layers.items(), counts.tolist(), strict=True):
            bias = f"{layer.name}.bias"
            if bias not in target.shapes:
                raise VqzooError(f"{path} has biases for {layer.name}, where the network has none")
            table, biases, index = _layer(data, layer, count, target.shapes[bias])
            if not layers and layer.kind == "conv2d" and layer.shape[1] == _RGB:
                index = index.reshape(layer.shape)[:, ::-1].reshape(layer.matrix_shape)
                notes.append(f"{layer.name} now takes RGB; the file has it for Caffe's BGR.")
            layers[key], tensors[bias] = _code(table, index), torch.from_numpy(biases)
        data.check_end()
        return ImportedNetwork(layers, tensors, notes=tuple(notes))


@dataclass
class _Bytes:
    """A file, read from its beginning to its end."""

    path: Path
    content: bytes
    place: int = 0

    def take(self, dtype: str, count: int, what: str) -> NDArray[Any]:
        """The next values.

        Raises:
            VqzooError: the file ends before.
        """
        size = count * np.dtype(dtype).itemsize
        if self.place + size > len(self.content):
            raise VqzooError(f"{self.path} ends within {what}")
        values = np.frombuffer(self.content, dtype, count, self.place)
        self.place += size
        return values.astype(values.dtype.newbyteorder("="))

    def check_end(self) -> None:
        """Refuse bytes that belong to no layer."""
        if rest := len(self.content) - self.place:
            raise VqzooError(f"{self.path} has {rest:,} bytes beyond the network's last layer")


def _content(path: Path, target: ImportTarget) -> bytes:
    """The bytes of a file that is not much larger than the network's own weights."""
    if not path.is_file():
        raise VqzooError(f"{path} is no file")
    limit = sum(4 * math.prod(shape) for shape in target.shapes.values())
    limit += 2048 * len(target.layers)
    if path.stat().st_size > limit:
        raise VqzooError(f"{path} is larger than the network's own weights")
    return path.read_bytes()


def _layer(
    data: _Bytes, layer: LayerInfo, count: int, bias: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The shared values of a layer, its biases, and the code of each weight, a matrix.

    Raises:
        VqzooError: the layer is of a kind that such files do not hold, or is damaged.
    """
    where = f"{data.path}: {layer.name}"
    convolution = layer.kind in ("conv1d", "conv2d", "conv3d")
    if not convolution and layer.kind != "linear":
        raise VqzooError(f"{where} is of the kind {layer.kind}, which such files do not hold")
    if not 1 <= count <= layer.numel:
        raise VqzooError(f"{where} has {count} entries for {layer.numel} weights")
    bits = 8 if convolution else 4
    table = data.take("<f4", 1 << bits, f"the shared values of {layer.name}")
    biases = data.take("<f4", math.prod(bias), f"the biases of {layer.name}")
    codes = _values(data, bits, count, f"the codes of {layer.name}")
    gaps = _values(data, _GAP_BITS, count, f"the gaps of {layer.name}")
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if positions[-1] >= layer.numel:
        raise VqzooError(f"{where}: its gaps lead beyond its {layer.numel} weights")
    index = np.zeros(layer.numel, dtype=np.uint8)
    index[positions] = codes
    return table, biases, index.reshape(layer.matrix_shape)


def _values(data: _Bytes, bits: int, count: int, what: str) -> NDArray[np.uint8]:
    """Integers of 8 bits, or of 4, two a byte."""
    stored: NDArray[np.uint8] = data.take("u1", -(-count * bits // 8), what)
    if bits == 8:
        return stored
    return np.stack([stored & 15, stored >> 4], axis=1).reshape(-1)[:count]


def _code(table: NDArray[Any], index: NDArray[Any]) -> MethodCode:
    """The code of a matrix of entries of a table; entry 0 is that of the weights without a code."""
    shape = (index.shape[0], index.shape[1])
    positions = np.flatnonzero(index)
    if table[0] != 0 or not positions.size:
        code = table_code(TableTensor(table, index.astype(np.int32)))
        assert code is not None  # a table of at most 256 entries is a codebook of km
        return code
    used, codes = np.unique(index.reshape(-1)[positions], return_inverse=True)
    gaps = gaps_of(torch.from_numpy(positions), _GAP_BITS)
    parts: dict[str, Indices | Floats] = {
        "gaps": Indices(gaps, 1 << _GAP_BITS),
        "codes": Indices(torch.from_numpy(codes), used.size),
        "codebook": exact_floats(table[used]),
    }
    return MethodCode("deep-compression", Code(shape, parts))
