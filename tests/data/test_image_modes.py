"""An image is the same to a model in whatever mode it was saved."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from vqzoo.data.image_modes import to_eight_bits
from vqzoo.errors import VqzooError

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def reopened(image: Image.Image, kind: str) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind)
    return Image.open(io.BytesIO(file.getvalue()))


def deep_png() -> Image.Image:
    return reopened(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG")


EQUIVALENTS = {
    "16-bit PNG": deep_png(),
    "16-bit TIFF": reopened(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"),
    "16-bit big-endian": Image.frombytes("I;16B", (16, 16), (GREY.astype(">u2") * 257).tobytes()),
    "16-bit PGM": reopened(Image.fromarray(GREY.astype(np.int32) * 257), "PPM"),
    "32-bit integers, 8 of them used": Image.fromarray(GREY.astype(np.int32)),
    "32-bit integers, 16 of them used": Image.fromarray(GREY.astype(np.int32) * 257),
    "floats up to 1": reopened(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    "floats up to 255": Image.fromarray(GREY.astype(np.float32)),
    **{
        mode: Image.fromarray(GREY).convert(mode)
        for mode in ("L", "P", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
    },
    "PA": Image.fromarray(GREY).convert("P").convert("PA"),
    "La": Image.fromarray(GREY).convert("LA").convert("La"),
    "RGBa": Image.fromarray(GREY).convert("RGBA").convert("RGBa"),
}


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", EQUIVALENTS)
def test_every_mode_gives_the_8_bit_original(name: str, mode: str) -> None:
    converted = to_eight_bits(EQUIVALENTS[name], mode)
    assert converted.mode == mode
    assert np.array_equal(np.asarray(converted.convert("L")), GREY)


def test_two_levels_and_lab() -> None:
    bilevel = Image.fromarray(GREY > 127)
    assert bilevel.mode == "1"
    assert set(np.unique(np.asarray(to_eight_bits(bilevel, "L")))) == {0, 255}
    for mode in ("L", "RGB"):
        white = to_eight_bits(Image.new("LAB", (4, 4), (255, 128, 128)), mode)
        assert np.asarray(white).min() > 250


def test_a_dark_16_bit_png_stays_dark() -> None:
    dark = reopened(Image.fromarray(np.full((4, 4), 200, np.uint16)), "PNG")
    assert np.asarray(to_eight_bits(dark, "L")).max() == 1


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((2, 2), 70_000, np.int32),
        np.full((2, 2), -1, np.int32),
        np.full((2, 2), 300, np.float32),
        np.full((2, 2), -0.5, np.float32),
        np.full((2, 2), np.nan, np.float32),
    ],
)
def test_values_of_no_known_range_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(VqzooError, match="has pixels between"):
        to_eight_bits(Image.fromarray(pixels), "RGB")


@given(arrays.arrays(np.uint16, (3, 5), elements=st.integers(0, 65535)))
def test_16_bits_are_rounded_to_the_nearest_of_8(pixels: np.ndarray) -> None:
    converted = np.asarray(to_eight_bits(Image.fromarray(pixels), "L"))
    assert np.abs(converted - pixels / 257).max() <= 0.5
