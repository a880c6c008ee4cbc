"""Limits of the plugin contract, applied to fresh codes and by the artifact reader alike.

Importing this module does not import torch, so that headers can be read without it.
"""

from typing import Literal

StorageDtype = Literal["float16", "bfloat16", "float32"]  # of the float parts of a Code

MAX_CARDINALITY = 1 << 16  # symbols of an index part: codes have at most 16 bits
MAX_DIMENSIONS = 8  # of a part, or of a weight
MAX_NUMEL = 1 << 34  # elements of a part
MAX_EXPONENT = 400  # of the power of two that scales a float part, in magnitude
MAX_CODES_PER_WEIGHT = 32  # codes of a layer per weight: more would take more bytes than float32
MAX_CHILD_GROWTH = 4  # elements of a child's matrix, as a multiple of its parent's

PART_NAME = r"[a-z][a-z0-9_]{0,63}"  # of a part or a child
MAX_NAME_LENGTH = 200  # characters of a method's, plugin's or fact's name
MAX_FACT_LENGTH = 1000  # characters of a fact that is text
