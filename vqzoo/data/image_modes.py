"""Converts any image that Pillow opens to 8-bit grey or RGB, by the range of its own mode.

Pillow's `convert` clips 16-bit, integer and float images to 0..255 instead of scaling them, so a
16-bit photograph turns white.
"""

import numpy as np
from PIL import Image

from vqzoo.errors import VqzooError

_FULL_16_BIT = 65535
_SCALED_TO_16_BIT = ("PNG", "PPM")  # Pillow scales their deep greys to 16 bits
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


def to_eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to `mode`.

    Args:
        image: in any of Pillow's modes. 16-bit greys range over 0..65535; 32-bit integers over
            0..65535, or 0..255 where no pixel is above 255 and the file format does not say
            otherwise; floats over 0..1, or 0..255 where a pixel is above 1.
        mode: "L" or "RGB". An alpha channel is dropped, as timm and torchvision drop it.

    Raises:
        VqzooError: the pixel values fit none of these ranges.
    """
    if image.mode.startswith("I"):
        image = _scaled(image, _integer_range(image))
    elif image.mode == "F":
        image = _scaled(image, _float_range(image))
    image = image.convert(_PREMULTIPLIED.get(image.mode, image.mode))
    if mode == "L" and image.mode == "LAB":
        image = image.convert("RGB")
    return image.convert(mode)


def _integer_range(image: Image.Image) -> float:
    low, high = _extremes(image)
    if low < 0 or high > _FULL_16_BIT:
        raise _out_of_range(image, low, high, f"0..{_FULL_16_BIT}")
    eight_bits = image.mode == "I" and image.format not in _SCALED_TO_16_BIT and high <= 255
    return 255 if eight_bits else _FULL_16_BIT


def _float_range(image: Image.Image) -> float:
    low, high = _extremes(image)
    if not (low >= 0 and high <= 255):  # NaN fails every comparison
        raise _out_of_range(image, low, high, "0..1 and 0..255")
    return 1 if high <= 1 else 255


def _out_of_range(image: Image.Image, low: float, high: float, ranges: str) -> VqzooError:
    name = getattr(image, "filename", "") or "an image"
    return VqzooError(f"{name} has pixels between {low:g} and {high:g}, outside {ranges}")


def _extremes(image: Image.Image) -> tuple[float, float]:
    pixels = np.asarray(image)
    return float(pixels.min()), float(pixels.max())


def _scaled(image: Image.Image, top: float) -> Image.Image:
    """8-bit grey, rounded to the nearest; `top` becomes 255."""
    pixels = np.asarray(image).astype(np.float64) * (255 / top)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
