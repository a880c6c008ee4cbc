"""The sections of a model card that say how an artifact was made, and from what."""

from collections.abc import Iterator

from vqzoo.artifact.reader import Artifact
from vqzoo.artifact.schema import BUDGET_PLOT_FILE, IMPORTED, WEIGHTS_FILE
from vqzoo.plugin.manager import Plugins
from vqzoo.report.budget import BudgetRecord
from vqzoo.report.card_metadata import (
    base_model,
    license_of,
    method_names,
    model_name,
    pretrained_cfg,
)
from vqzoo.report.formatting import chosen_text, count_of, nats, points, predicted_text
from vqzoo.report.markdown import code, plain
from vqzoo.report.record import Record
from vqzoo.report.steps import FinetuningRecord, RecoveryRecord, RepairRecord


def making_section(artifact: Artifact, record: Record | None) -> str:
    """The command, the versions, and the steps besides compression."""
    if record is None and artifact.block.weights.startswith(IMPORTED):
        return (
            f"## How it was made\n\nBy `vqzoo import`, from {_imported_file(artifact)}. The "
            "decoded weights are those that the library which wrote it computes with, bit for bit."
        )
    if record is None:
        return (
            "## How it was made\n\nWith `vqzoo.compress`, from a model in memory, with the methods "
            "and options above."
        )
    versions = ", ".join(f"{plain(name)} {plain(v)}" for name, v in record.versions.items())
    command = record.command.replace("`", "'").replace("\n", " ")
    return (
        f"## How it was made\n\n```sh\n{command}\n```\n\n"
        f"with {versions}. The same command, weights and versions give the same bytes on one "
        f"machine; the sha256 of `{WEIGHTS_FILE}` is `{artifact.block.sha256}`."
        + "".join(f"\n\n{step}" for step in _steps(record))
    )


def _steps(record: Record) -> Iterator[str]:
    """A sentence or two on each step besides compression."""
    if record.calibration is not None:
        yield (
            "Methods that support calibration weighted errors by each layer's inputs on "
            f"{plain(record.calibration.data)}"
            + (", behind the layers compressed before." if record.calibration.sequential else ".")
        )
    if record.budget is not None:
        yield _budget(record.budget) + _prediction(record)
        yield f"![Bytes and predicted loss by layer]({BUDGET_PLOT_FILE})"
    if (repair := record.repair) is not None:
        yield (
            f"After compression, {_repaired(repair)} corrected on {plain(repair.data)}, without "
            "labels."
        )
    if record.recovery is not None:
        yield _recovery(record.recovery)
    methods = dict.fromkeys(stage.method for stage in record.stages[1:])
    if len(methods) > 1:
        names = ", then ".join(code(name) for name in methods)
        yield f"It was compressed in stages, with fine-tuning after each: {names}."
    if record.finetuning is not None:
        yield _finetuning(record.finetuning, record.model)


def _budget(budget: BudgetRecord) -> str:
    """What the price of a bit was chosen for, and what held-out images said."""
    text = f"One price of a bit holds for all layers, {budget.price:g} squared logits"
    if budget.size is not None:
        return f"{text}, chosen for a file of at most {budget.size:,} bytes."
    if budget.held_out is None:
        return f"{text}."
    held_out = budget.held_out
    if budget.max_kl is not None:
        limit = f"a divergence of at most {budget.max_kl:g} nats"
        judged = nats(held_out.kl)
    else:
        limit = f"a loss of at most {budget.max_drop or 0:g} points of top-1"
        judged = f"{points(-(held_out.drop or 0), held_out.ci95)} points"
        if held_out.drop_bound is not None:
            judged += f", and no more than {held_out.drop_bound:.2f} lost with 95% confidence"
    return (
        f"{text}, chosen for {limit} on {plain(held_out.data)}: there it was {judged}. "
        "The figures above are on other images."
    )


def _prediction(record: Record) -> str:
    """Which methods the layers got, and the prediction beside what was measured."""
    assert record.budget is not None
    text = ""
    if len(record.budget.methods) > 1:
        text = f" Each layer got the cheapest of several methods: {plain(chosen_text(record))}."
    predicted = predicted_text(record)
    return text if predicted is None else f"{text} Predicted was {predicted}."


def _repaired(repair: RepairRecord) -> str:
    """What was corrected, with its verb."""
    norms = count_of(len(repair.norms), "batch norm")
    biases = count_of(len(repair.biases), "bias", "biases")
    if repair.norms and repair.biases:
        return f"the statistics of {norms} and {biases} were"
    if repair.norms:
        return f"the statistics of {norms} were"
    verb = "was" if len(repair.biases) == 1 else "were"
    return f"{biases} {verb}" if repair.biases else "nothing was"


def _recovery(recovery: RecoveryRecord) -> str:
    before, after = recovery.divergence.before, recovery.divergence.after
    moved = "codes stayed fixed" if not recovery.codes else f"{recovery.codes:,} codes moved"
    return (
        "What is stored as floats learned the dense model's answers again, from "
        f"{count_of(recovery.images, 'image')} of {plain(recovery.data)} without labels; "
        f"{moved}. The divergence from the dense model on {recovery.held_out:,} images held "
        f"out was {nats(before)} before and {nats(after)} after."
    )


def _finetuning(finetuning: FinetuningRecord, model: str) -> str:
    best, epochs = finetuning.best_epoch, len(finetuning.history) - 1
    teacher = finetuning.teacher or model
    teacher_text = "the dense model" if teacher == model else code(teacher)
    if all(epoch.validation_loss is None for epoch in finetuning.history):
        kept = f"No images were held out: the values of epoch {best}, the last, were kept."
    elif best:
        kept = f"The loss on held-out images was lowest after epoch {best} of {epochs}."
    else:
        kept = (
            f"None of {count_of(epochs, 'epoch')} lowered the loss on held-out images: the values "
            "from before fine-tuning were kept."
        )
    return (
        f"It was fine-tuned by distillation from {teacher_text} on {plain(finetuning.data)}; "
        f"codes stayed fixed. {kept} Another number of threads changes the rounding of sums, and "
        "with it the bytes."
    )


def _imported_file(artifact: Artifact) -> str:
    """The file that was imported, and its kind."""
    kind, _, name = artifact.block.weights.removeprefix(IMPORTED).partition(":")
    return f"the file {code(name)} of the kind {code(kind)}"


def origin_section(artifact: Artifact, record: Record | None, plugins: Plugins) -> str:
    """Where the dense weights came from, their licence, and the methods' sources."""
    base, weights = base_model(artifact, record), artifact.block.weights
    if base:
        origin = f"The dense weights are those of [{plain(base)}](https://huggingface.co/{base})"
    elif weights.startswith(IMPORTED):
        origin = f"The weights come from {_imported_file(artifact)}"
        if isinstance(address := pretrained_cfg(artifact).get("origin_url"), str):
            origin += f", from {plain(address, 500)}"
    elif weights == "pretrained":
        origin = f"The dense weights are those of {code(model_name(artifact, record))}"
    else:
        origin = f"The source of the dense weights is recorded as {code(weights)}"
    license_id, license_name = license_of(artifact)
    if license_id == "unknown":
        terms = "their licence, which is not recorded, applies to this artifact too"
    else:
        name = plain(license_name or license_id)
        terms = f"their licence, {name}, applies to this artifact too"
    lines = ["## Origin, licence and papers", "", f"{origin}; {terms}.", ""]
    installed = {*plugins.quantizers.names(), *plugins.transforms.names()}
    for method in method_names(artifact):
        source = plugins.method(method).item.source if method in installed else ""
        text = plain(source, 400) or "its plugin names no source"
        lines.append(f"* {code(method)}: {text}")
    return "\n".join(lines)
