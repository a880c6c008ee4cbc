"""Element types of stored tensors: torch's names, safetensors' names and sizes.

Importing this module does not import torch, so that headers can be read without it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqzoo.errors import VqzooError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ElementType:
    """One element type.

    Attributes:
        name: torch's name, "float16".
        stored_name: safetensors' name, "F16".
        itemsize: bytes of one element.
    """

    name: str
    stored_name: str
    itemsize: int

    @property
    def is_floating_point(self) -> bool:
        """Whether it is a floating-point type."""
        return "float" in self.name


# In the order in which safetensors lays tensors out in a file.
ELEMENT_TYPES = (
    ElementType("uint64", "U64", 8),
    ElementType("int64", "I64", 8),
    ElementType("float64", "F64", 8),
    ElementType("float32", "F32", 4),
    ElementType("uint32", "U32", 4),
    ElementType("int32", "I32", 4),
    ElementType("bfloat16", "BF16", 2),
    ElementType("float16", "F16", 2),
    ElementType("uint16", "U16", 2),
    ElementType("int16", "I16", 2),
    ElementType("int8", "I8", 1),
    ElementType("uint8", "U8", 1),
    ElementType("bool", "BOOL", 1),
)
BY_NAME = {element.name: element for element in ELEMENT_TYPES}
BY_STORED_NAME = {element.stored_name: element for element in ELEMENT_TYPES}


def element_type(dtype: "torch.dtype") -> ElementType:
    """The element type of a torch dtype.

    Raises:
        VqzooError: no artifact can hold such tensors (complex numbers, 8-bit floats).
    """
    name = str(dtype).removeprefix("torch.")
    if name not in BY_NAME:
        raise VqzooError(f"an artifact cannot hold tensors of dtype {name}")
    return BY_NAME[name]


def torch_dtype(name: str) -> "torch.dtype":
    """The torch dtype of one of torch's names, "float16"."""
    import torch

    dtype: torch.dtype = getattr(torch, BY_NAME[name].name)
    return dtype
