"""The dense models that come with vqzoo, and the data that comes with them."""

from pathlib import Path

# Offline, a name on the left falls back on the embedded model on the right.
EMBEDDED_RELATIVES = {"alexnet": "alexnet_mini.fmnist"}
_DATA = {
    "alexnet_mini.fmnist": "fmnist",
    "mobilenet_mini.fmnist": "fmnist",
    "vit_mini.fmnist": "fmnist",
}

# Pixel mean and standard deviation of Fashion-MNIST's 60,000 training images, on a scale of 0 to 1.
FMNIST_MEAN = (0.2860,)
FMNIST_STD = (0.3530,)
FMNIST_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def is_embedded(model_name: str) -> bool:
    """Check whether a model's weights come with vqzoo."""
    return model_name in _DATA


def default_data(model_name: str) -> str | None:
    """The data to measure a model on if the user names none; None if vqzoo has none for it."""
    return _DATA.get(model_name)


def weights_file(model_name: str) -> Path:
    """The float16 safetensors file of an embedded model's weights."""
    return Path(__file__).parent / "assets" / f"{model_name}.safetensors"


def fmnist_config(model_name: str, **architecture: object) -> dict[str, object]:
    """timm's configuration of an embedded network for Fashion-MNIST.

    Args:
        model_name: with its tag, such as "vit_mini.fmnist".
        architecture: the entries that differ, such as `first_conv`, `classifier`, `description`.
    """
    return {
        "file": str(weights_file(model_name)),
        "num_classes": 10,
        "input_size": (1, 28, 28),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": FMNIST_MEAN,
        "std": FMNIST_STD,
        "label_names": FMNIST_LABELS,
        "license": "apache-2.0",
        **architecture,
    }
