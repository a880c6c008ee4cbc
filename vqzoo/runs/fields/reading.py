"""Fields that say how images are read."""

from pathlib import Path
from typing import Annotated, Any

from vqzoo.artifact.files import sha256_file
from vqzoo.command_options import CommandOption

ClassMapFile = Annotated[
    Path | None,
    CommandOption(
        "--class-map",
        help="Which class each folder of imagefolder:PATH is: lines 'FOLDER' (the line number is "
        "the class) or 'FOLDER NUMBER', or JSON.",
        default="by name where the model's classes have names, else in natural order",
        metavar="FILE",
    ),
]
SkipUnreadable = Annotated[
    bool,
    CommandOption(
        "--skip-unreadable",
        help="Leave out images that cannot be read, and name them, instead of failing. Every image "
        "is read once more to find them.",
    ),
]


def is_folder(spec: str | None) -> bool:
    """Whether a data specification names a folder of images."""
    return spec is not None and spec.startswith("imagefolder:")


def check_class_map(class_map: Path | None, *specs: str | None) -> None:
    """Refuse a class map without a folder that it could be for.

    Raises:
        ValueError: none of the data specifications is a folder.
    """
    if class_map is not None and not any(map(is_folder, specs)):
        raise ValueError(
            "a class map is for folders of labelled images: give one as imagefolder:PATH"
        )


def reading_fields(class_map: Path | None, skip_unreadable: bool) -> dict[str, Any]:
    """What a hash has of how images are read: nothing where they are read plainly.

    Raises:
        OSError: the class map cannot be read.
    """
    fields: dict[str, Any] = {}
    if class_map is not None:
        fields["class_map"] = sha256_file(class_map.expanduser())
    if skip_unreadable:
        fields["skip_unreadable"] = True
    return fields
