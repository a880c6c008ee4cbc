"""The contract of an importer: a file that another library wrote, as codes of vqzoo's methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from vqzoo.plugin.code import MethodCode
from vqzoo.plugin.selector import LayerInfo


@dataclass(frozen=True)
class ImportTarget:
    """The network that a file is imported into.

    Attributes:
        layers: state dict key of a weight -> its layer, for all weights that can be codes, in the
            model's order.
        shapes: state dict key -> shape, for all parameters and buffers, in the model's order.
        norms: module path -> eps of each batch norm, in the model's order.
        classifier: module paths of the layers that compute the answers.
    """

    layers: Mapping[str, LayerInfo]
    shapes: Mapping[str, tuple[int, ...]]
    norms: Mapping[str, float] = field(default_factory=dict)
    classifier: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportedNetwork:
    """The contents of a file, by keys of the network's state dict.

    `layers` and `tensors` together have every key of `ImportTarget.shapes` once, and no other; only
    the counters of batch norms, `num_batches_tracked`, may be missing.

    Attributes:
        layers: key of a weight -> its code, of a registered method. It decodes, in float32, to
            exactly the weight that the other library computes with, viewed as a matrix; see
            `LayerInfo.matrix_shape`.
        tensors: key -> tensor that stays dense. Values that the network's own dtype cannot hold are
            refused.
        licence: what the file says of its licence: an identifier such as "cc-by-nc-4.0".
        origin: what the file says of where it came from: an address, or a few words.
        notes: lines that the user should see.
    """

    layers: Mapping[str, MethodCode]
    tensors: Mapping[str, Tensor]
    licence: str | None = None
    origin: str | None = None
    notes: tuple[str, ...] = ()


class Importer(ABC):
    """Reads one kind of file. Pure: the same file and target give the same codes.

    Attributes:
        name: what users give to `vqzoo import --from`, of a-z, 0-9, - and _.
        version: of what the importer makes of a file; raise it when that changes.
        summary: one line about the kind of file.
        source: the paper, or the library that writes such files.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""

    @abstractmethod
    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        """Read a file, or a folder where the other library writes one, without executing any of it.

        The file may come from anyone: check sizes before memory is allocated, and codes before they
        are used as an index.

        Args:
            path: an existing file or folder.
            target: the network that the user named.

        Raises:
            VqzooError: the file is damaged, of another kind, or does not fit the network; one line
                that names the layer or the key.
        """
