"""The fields of a recipe that set a budget for the whole network."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vqzoo.artifact.schema import Rest
from vqzoo.budget.file_size import parse_size, size_field
from vqzoo.command_options import CommandOption

BUDGET_REST: Rest = "float16"  # how a file under a budget stores what stays dense, by default
HELD_OUT_IMAGES = 5000

_PANEL = "Budget: one price of a bit for the whole network"
# The fields that choose the price, and their options; a recipe has at most one of them.
_FLAGS = {
    "size": "--size",
    "max_kl": "--max-kl",
    "max_drop": "--max-drop",
    "price": "--lambda",
}


class BudgetSettings(BaseModel):
    """One price of a bit, lambda, for all layers: what it is chosen for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[
        str | None,
        BeforeValidator(size_field),
        CommandOption(
            "--size",
            help="The whole file, header included, is at most this large: 2.3MB, 200kB, or bytes "
            "(powers of ten).",
            panel=_PANEL,
        ),
    ] = None
    max_kl: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False),
        CommandOption(
            "--max-kl",
            help="The smallest file whose answers diverge from the dense network's by at most so "
            "many nats, on images held out of calibration.",
            panel=_PANEL,
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        Field(ge=0, lt=100),
        CommandOption(
            "--max-drop",
            help="The smallest file that loses at most so many points of top-1, with 95% "
            "confidence, by labelled images held out of calibration.",
            panel=_PANEL,
        ),
    ] = None
    price: Annotated[
        float | None,
        Field(ge=1e-15, le=1e6),
        CommandOption(
            "--lambda",
            help="The price itself, in squared logits a bit; a higher one makes the file smaller.",
            panel=_PANEL,
        ),
    ] = None
    held_out_images: Annotated[
        int,
        Field(ge=1),
        CommandOption(
            "--held-out-images",
            help="How many calibration images --max-kl and --max-drop hold out at most.",
            panel=_PANEL,
        ),
    ] = HELD_OUT_IMAGES

    @model_validator(mode="before")
    @classmethod
    def _all_layers(cls, fields: Any) -> Any:
        """Select all layers if the request says nothing else, in settings that select layers."""
        selects = "layers" in cls.model_fields and isinstance(fields, dict)
        if selects and any(fields.get(name) is not None for name in _FLAGS):
            return {"layers": ("all",), **fields}
        return fields

    @model_validator(mode="after")
    def _one_budget(self) -> "BudgetSettings":
        flags = [flag for name, flag in _FLAGS.items() if getattr(self, name) is not None]
        if len(flags) > 1:
            raise ValueError(f"give one of {' and '.join(flags)}: each chooses the price of a bit")
        if "held_out_images" in self.model_fields_set and not self.held_out:
            raise ValueError("held_out_images belongs to --max-kl and --max-drop: give one of them")
        return self

    def check_beside(self, *, ratio: bool, finetune: bool) -> None:
        """Refuse a budget beside a ratio, or a number of held-out images beside fine-tuning.

        Raises:
            ValueError: says what to do.
        """
        if self.budget is not None and ratio:
            raise ValueError(
                f"{self.budget} and --ratio both choose what layers are made of: give one"
            )
        if finetune and "held_out_images" in self.model_fields_set:
            raise ValueError(
                f"{self.budget} beside fine-tuning is measured on the images that validate "
                "fine-tuning: leave held_out_images out"
            )

    @property
    def budget(self) -> str | None:
        """The option that chooses the price of a bit, such as "--size"; None without one."""
        flags = (flag for name, flag in _FLAGS.items() if getattr(self, name) is not None)
        return next(flags, None)

    @property
    def size_bytes(self) -> int | None:
        """The size that the file may have, in bytes."""
        return None if self.size is None else parse_size(self.size)

    @property
    def held_out(self) -> bool:
        """Whether images that are held out of calibration judge the network."""
        return self.max_kl is not None or self.max_drop is not None
