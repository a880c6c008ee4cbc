"""The dense models that come with vqzoo, and the data that comes with them."""

# Offline, a name on the left falls back on the embedded model on the right.
EMBEDDED_RELATIVES = {"alexnet": "alexnet_mini.fmnist"}
_DATA = {"alexnet_mini.fmnist": "fmnist"}


def is_embedded(model_name: str) -> bool:
    """Check whether a model's weights come with vqzoo."""
    return model_name in _DATA


def default_data(model_name: str) -> str | None:
    """The data to measure a model on if the user names none; None if vqzoo has none for it."""
    return _DATA.get(model_name)
