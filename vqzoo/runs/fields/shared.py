"""Fields that requests have in common, and how requests are validated."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from vqzoo.command_options import CommandOption
from vqzoo.errors import UsageError, invalid_field

Request = TypeVar("Request", bound=BaseModel)

MeasuredImages = Annotated[
    int | None,
    Field(ge=1),
    CommandOption("--images", help="Measure on this many images, evenly spaced.", default="all"),
]
Seed = Annotated[
    int,
    Field(ge=0, lt=2**31),
    CommandOption("--seed", help="The same seed gives the same bytes."),
]
Device = Annotated[str, CommandOption("--device", help="cpu, cuda, cuda:1, mps.", recorded=False)]


def make_request(kind: type[Request], fields: Mapping[str, Any]) -> Request:
    """Validate the fields of a request.

    Raises:
        UsageError: one line that names the field.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        field = invalid_field(error)
        text = f"{field.name}: {field.reason}" if field.name else field.reason
        raise UsageError(text) from None
