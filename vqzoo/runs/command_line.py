"""The canonical command of a recipe."""

from collections.abc import Mapping
from pathlib import Path

from vqzoo.runs.recipe import OptionValue, Recipe


def canonical_command(recipe: Recipe, model: str) -> str:
    """The command that asks for this recipe, without local paths."""
    import shlex

    words = ["vqzoo", "run", model]
    if recipe.checkpoint is not None:
        words += ["--checkpoint", recipe.checkpoint.name]
    if recipe.weights != "pretrained":
        words += ["--weights", recipe.weights]
    for name, value in sorted(recipe.model_args.items()):
        words += ["--model-arg", f"{name}={value}"]
    if recipe.method is not None:
        words += ["--method", recipe.method]
    for name, value in sorted(recipe.options.items()):
        words += ["-o", f"{name}={value}"]
    if recipe.ratio is not None:
        words += ["--ratio", repr(recipe.ratio).removesuffix(".0")]
    for step in recipe.transforms:
        words += ["--transform", _call(step.name, step.options)]
    if recipe.layers != ("dense",):
        words += ["--layers", ",".join(recipe.layers)]
    for rule in recipe.rules:
        given = dict(rule.options) | ({"ratio": rule.ratio} if rule.ratio else {})
        calls = [*(_call(s.name, s.options) for s in rule.transforms), _call(rule.method, given)]
        words += ["--rule", f"{rule.layers}={'+'.join(calls)}"]
    if recipe.packing != "bits":
        words += ["--packing", recipe.packing]
    if recipe.data is not None:
        words += ["--data", public_data_name(recipe.data)]
    if recipe.images is not None:
        words += ["--images", str(recipe.images)]
    for name, spec in (("calibrate", recipe.calibrate), ("repair", recipe.repair)):
        words += ["--" + name, public_data_name(spec)] if spec is not None else []
    if recipe.calibration_images != Recipe.model_fields["calibration_images"].default:
        words += ["--calibration-images", str(recipe.calibration_images)]
    if recipe.finetune is not None:
        words += ["--finetune", str(recipe.finetune.epochs)]
        if recipe.finetune.data is not None:
            words += ["--train-data", public_data_name(recipe.finetune.data)]
        words += recipe.finetune.words()
    if recipe.seed:
        words += ["--seed", str(recipe.seed)]
    for path in recipe.plugins:
        words += ["--plugin", path.name]
    if recipe.dense:
        words += ["--dense"]
    return shlex.join(words)


def _call(name: str, options: Mapping[str, OptionValue]) -> str:
    """What `parse_call` reads, also behind a + (so floats are written as 1e5, not 1e+05)."""
    pairs = [f"{key}={_plain(value)}" for key, value in sorted(options.items())]
    return f"{name}:{','.join(pairs)}" if pairs else name


def _plain(value: OptionValue) -> str:
    return str(value).replace("e+", "e") if isinstance(value, float) else str(value)


def public_data_name(spec: str) -> str:
    """A data specification without the folders above its own."""
    kind, colon, path = spec.partition(":")
    return f"{kind}:{Path(path).name}" if colon and kind in ("imagefolder", "fmnist") else spec
