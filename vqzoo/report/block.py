"""What every JSON object of a record has in common."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, strict=True)]
# A number that keeps the type it was computed in: report.json writes 8217216 and 8217216.0 apart.
Number = int | float
Options = dict[str, bool | int | float | str | None]


class Block(BaseModel):
    """One JSON object of report.json.

    Unknown keys are ignored, so that the files of newer versions load. A field with a default is
    optional in the file.
    """

    model_config = ConfigDict(
        frozen=True, allow_inf_nan=False, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    def to_dict(self) -> dict[str, Any]:
        """The object as plain JSON values, in the order of its fields; optional fields that were
        never set are left out."""
        return self.model_dump(mode="json", exclude_unset=True)
