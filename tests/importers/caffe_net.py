"""Files of Deep Compression as its authors wrote them, of a generated network, byte by byte."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

ARCHITECTURE = "caffe_lenet"  # two convolutions and two linear layers, with biases

default_cfgs = generate_default_cfgs(
    {ARCHITECTURE: {"input_size": (3, 20, 20), "num_classes": 10, "classifier": "fc2"}}
)


class LeNet(nn.Module):
    """The layers of LeNet, for small images in colour."""

    def __init__(self, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_chans, 8, 5)
        self.conv2 = nn.Conv2d(8, 16, 5)
        self.fc1 = nn.Linear(16 * 4, 50)
        self.fc2 = nn.Linear(50, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv1(x), 2)
        x = nn.functional.max_pool2d(self.conv2(x), 2)[..., :2, :2]
        return self.fc2(self.fc1(x.flatten(1)).relu())


@register_model
def caffe_lenet(pretrained: bool = False, **kwargs: object) -> LeNet:
    model: LeNet = build_model_with_cfg(LeNet, ARCHITECTURE, pretrained, **kwargs)
    return model


class Layer:
    """A layer of a file.

    Attributes:
        table: shared values, float32; the first is that of weights without an entry.
        bias: float32.
        codes, gaps: of the entries.
    """

    def __init__(self, random: np.random.Generator, size: int, outputs: int, bits: int) -> None:
        self.bits = bits
        self.table = random.normal(size=1 << bits).astype("<f4")
        self.table[0] = 0
        self.bias = random.normal(size=outputs).astype("<f4")
        self.codes: list[int] = []
        self.gaps: list[int] = []
        place = 0
        while True:
            gap = int(random.integers(0, 40))
            while gap > 15:  # an entry for the zero that lies 15 zeros further
                self._entry(15, 0)
                gap -= 16
                place += 16
            place += gap
            if place >= size:
                break
            self._entry(gap, int(random.integers(1, 1 << bits)))
            place += 1
        while sum(self.gaps) + len(self.gaps) > size:
            self.gaps.pop()
            self.codes.pop()

    def _entry(self, gap: int, code: int) -> None:
        self.gaps.append(gap)
        self.codes.append(code)

    def decoded(self, size: int) -> NDArray[np.float32]:
        """Each weight, one entry after another."""
        weight = np.full(size, self.table[0], dtype=np.float32)
        place = -1
        for gap, code in zip(self.gaps, self.codes, strict=True):
            place += gap + 1
            if place < size:  # a damaged file may go on
                weight[place] = self.table[code]
        return weight

    def stored(self) -> bytes:
        """The bytes of the layer."""
        codes = bytes(self.codes) if self.bits == 8 else nibbles(self.codes)
        return self.table.tobytes() + self.bias.tobytes() + codes + nibbles(self.gaps)


def nibbles(values: Sequence[int]) -> bytes:
    """Two values a byte, the first in its lower half."""
    even = [*values, 0] if len(values) % 2 else values
    return bytes(low | high << 4 for low, high in zip(even[::2], even[1::2], strict=True))


def deep_compression(
    path: Path,
    model: nn.Module,
    change: Callable[[list[Layer]], None] = lambda layers: None,
) -> dict[str, NDArray[np.float32]]:
    """Write a file for a network of convolutions and linear layers.

    Args:
        path: the file.
        model: gives the layers and their shapes.
        change: changes the layers before they are written.

    Returns:
        The state dict that the file's decoder gives, for images in Caffe's order of channels.
    """
    random = np.random.default_rng(5)
    modules = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    layers = [
        Layer(random, m.weight.numel(), m.weight.shape[0], 8 if isinstance(m, nn.Conv2d) else 4)
        for _, m in modules
    ]
    change(layers)
    counts = b"".join(struct.pack("<I", len(layer.gaps)) for layer in layers)
    path.write_bytes(counts + b"".join(layer.stored() for layer in layers))
    state = {}
    for (name, module), layer in zip(modules, layers, strict=True):
        state[f"{name}.weight"] = layer.decoded(module.weight.numel()).reshape(module.weight.shape)
        state[f"{name}.bias"] = layer.bias
    return state
