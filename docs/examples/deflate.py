"""A packing that stores each code in one or two bytes and compresses them with zlib."""

import zlib

import numpy as np
import torch
from torch import Tensor

from vqzoo.plugin import Packing, hookimpl

vqzoo_contract = 1


class Deflate(Packing):
    """The packing of `--packing deflate`."""

    name = "deflate"
    summary = "zlib over whole bytes: small if codes are skewed"

    def pack(self, values: Tensor, cardinality: int) -> Tensor:
        """Return the stream, a 1-D uint8 tensor."""
        raw = values.numpy().astype(_dtype(cardinality)).tobytes()
        return torch.frombuffer(bytearray(zlib.compress(raw, 9)), dtype=torch.uint8)

    def unpack(self, stream: Tensor, cardinality: int, count: int) -> Tensor:
        """Return the codes. At most `count` are inflated: a stream may come from anyone."""
        dtype = np.dtype(_dtype(cardinality))
        inflater = zlib.decompressobj()
        try:
            raw = inflater.decompress(stream.numpy().tobytes(), max(1, count * dtype.itemsize))
            rest = inflater.unconsumed_tail or inflater.unused_data
        except zlib.error as error:
            raise ValueError(f"the stream is damaged: {error}") from None
        if len(raw) != count * dtype.itemsize or not inflater.eof or rest:
            raise ValueError(f"the stream does not hold {count} codes")
        return torch.from_numpy(np.frombuffer(raw, dtype).astype(np.int32))


def _dtype(cardinality: int) -> str:
    return "u1" if cardinality <= 256 else "<u2"


@hookimpl
def vqzoo_packings() -> list[Packing]:
    """Register the packing."""
    return [Deflate()]
