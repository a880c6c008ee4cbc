"""The arguments of `vqzoo.compress` that set a budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import nn

from vqzoo.artifact.schema import WEIGHTS_ONLY, Layout, Rest
from vqzoo.budget.settings import BUDGET_REST, BudgetSettings
from vqzoo.budget.task import Limit
from vqzoo.errors import UsageError, invalid_field
from vqzoo.models.arguments import required_features
from vqzoo.models.timm_config import timm_config


def limit_of(
    size: str | int | None,
    max_kl: float | None,
    max_drop: float | None,
    lambda_: float | None,
) -> Limit | None:
    """The budget that the arguments set; None where all are None.

    Raises:
        UsageError: several are given, or a value makes no sense.
    """
    arguments = {"size": size, "max_kl": max_kl, "max_drop": max_drop, "lambda_": lambda_}
    given: Mapping[str, Any] = {k: value for k, value in arguments.items() if value is not None}
    if not given:
        return None
    if len(given) > 1:
        names = " and ".join(f"{name}=" for name in given)
        raise UsageError(f"give one of {names}: each chooses the price of a bit")
    ((name, value),) = given.items()
    try:
        settings = BudgetSettings(**{"price" if name == "lambda_" else name: value})
    except ValidationError as error:
        raise UsageError(f"{name}={value!r:.40}: {invalid_field(error).reason}") from None
    return Limit(
        f"{name}=",
        f"{name}={value}",
        size=settings.size_bytes,
        max_kl=settings.max_kl,
        max_drop=settings.max_drop,
        price=settings.price,
    )


@dataclass(frozen=True)
class FileForm:
    """What the file of a network requires of its readers, and how it stores what stays dense."""

    features: tuple[str, ...]
    rest: Rest
    layout: Layout


def form_when_saved(model: nn.Module) -> FileForm:
    """The form under a budget: that of `CompressedModel.save`, or of `save_weights` where timm
    cannot create the network."""
    try:
        features = required_features(timm_config(model, pretrained=False))
    except UsageError:
        return FileForm((WEIGHTS_ONLY,), "float32", "plain")
    return FileForm(tuple(features), BUDGET_REST, "compact")
