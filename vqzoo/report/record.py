"""The record of a run: what report.json and `--json` hold."""

import json
import math
import platform
from collections.abc import Sequence
from importlib.metadata import version

from pydantic import Field

from vqzoo.compression.measures.coverage import Coverage
from vqzoo.plugin.manager import Plugins
from vqzoo.report.block import Block, Count, Options
from vqzoo.report.budget import BudgetRecord
from vqzoo.report.layer_record import LayerRecord
from vqzoo.report.measured import AccuracyRecord, AgreementRecord
from vqzoo.report.steps import (
    CalibrationRecord,
    FinetuningRecord,
    NormsRecord,
    RecoveryRecord,
    RepairRecord,
    RestRecord,
    StageRecord,
)

_PACKAGES = ("vqzoo", "torch", "timm", "safetensors", "numba", "numpy")


class FileSizes(Block):
    """Sizes of whole weights files, in bytes."""

    dense: Count
    """The safetensors file of the dense state dict in fp32."""
    file: Count
    """The artifact's `vqzoo.safetensors`, header included."""


class Ratios(Block):
    """Compression ratios: dense fp32 size divided by compressed size."""

    layers: float
    """Over the compressed layers, every stored byte counted."""
    file: float
    """Of the whole weights file."""
    theoretical: float | None
    """Over the compressed layers by the formulas of the methods' sources; null where one has
    none."""


class Seconds(Block):
    """Wall-clock times in seconds."""

    compress: float | None = None
    """Compression; absent for `vqzoo finetune`."""
    finetune: float | None = None
    """Fine-tuning; absent without it."""
    evaluate: float
    """Measuring both networks."""
    total: float
    """The whole run."""


class DenseWeights(Block):
    """Weights that stayed dense for one reason."""

    reason: str
    """The reason, as in `skipped`; vectors have one of their own."""
    parameters: Count
    """How many weights stayed dense for it."""


class CoverageRecord(Block):
    """An account of every parameter of the network; shared ones count once."""

    parameters: Count
    """Number of weights: of all numbers that parameters hold."""
    compressed: Count
    """How many of them are compressed."""
    dense: tuple[DenseWeights, ...]
    """The others, most of them first."""

    def coverage(self) -> Coverage:
        """The same as an object that has words for it."""
        reasons = {group.reason: group.parameters for group in self.dense}
        return Coverage(self.parameters, self.compressed, reasons)


class Record(Block):
    """The record of a run."""

    model: str
    """Full timm name of the model, without local folders."""
    weights: str
    """Source of the dense weights: `pretrained`, `random` or `checkpoint:<file name>`; of a network
    that was imported as codes `imported:<kind>:<file name>`."""
    weights_sha256: str
    """sha256 of the dense state dict in fp32."""
    method: str
    """The method, or `mixed` for several."""
    options: Options
    """Options of the request: those of the method, and `ratio`."""
    seed: int
    """Seed of the run."""
    asked_sha256: str
    """Hash of the request, with the weights and plugin versions that it resolved to."""
    bytes: FileSizes
    """Sizes of the weights files."""
    ratio: Ratios
    """Compression ratios."""
    accuracy: AccuracyRecord | None
    """Accuracy before and after; null where it was not measured."""
    agreement: AgreementRecord | None
    """Agreement on images without labels; null where it was not measured."""
    layers: tuple[LayerRecord, ...]
    """The compressed layers, in the order of the model."""
    skipped: dict[str, str]
    """Layers that stayed dense, each with the reason; matrices that are no layer's weight, too."""
    coverage: CoverageRecord | None = None
    """How much of the network's weights is compressed; null in older records."""
    stages: tuple[StageRecord, ...] = ()
    """Stages of a run that fine-tunes; empty for other runs."""
    finetuning: FinetuningRecord | None = None
    """How the network was fine-tuned; null without fine-tuning."""
    calibration: CalibrationRecord | None = None
    """The calibration images; null without calibration."""
    budget: BudgetRecord | None = None
    """The budget for the whole network, and how it was met; absent without one."""
    rest: RestRecord | None = None
    """How the tensors that stay dense were rounded; absent where they were not."""
    norms: NormsRecord | None = None
    """Which batch norms were folded; absent where folding was not asked for."""
    repair: RepairRecord | None = None
    """What was repaired; null without repair."""
    recovery: RecoveryRecord | None = None
    """What recovery did; absent without it."""
    unreadable: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Data to its images that were left out because they cannot be read; absent if there are none.
    """
    seconds: Seconds
    """Wall-clock times."""
    command: str
    """A command that makes the artifact again, without local folders."""
    versions: dict[str, str]
    """Versions of Python, of the main packages and of plugin packages."""

    def to_json(self) -> str:
        """The text of report.json, without a line break at its end."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def coverage_record(coverage: Coverage) -> CoverageRecord:
    """The account of a network's parameters."""
    return CoverageRecord(
        parameters=coverage.parameters,
        compressed=coverage.compressed,
        dense=tuple(DenseWeights(reason=why, parameters=n) for why, n in coverage.dense.items()),
    )


def ratios(layers: Sequence[LayerRecord], sizes: FileSizes) -> Ratios:
    """Compute the ratios of a run from its compressed layers (at least one) and file sizes."""
    weights = sum(math.prod(layer.shape) for layer in layers)
    paper_bits = [layer.paper_bits for layer in layers if layer.paper_bits is not None]
    return Ratios(
        layers=4 * weights / sum(layer.bytes for layer in layers),
        file=sizes.dense / sizes.file,
        theoretical=32 * weights / sum(paper_bits) if len(paper_bits) == len(layers) else None,
    )


def versions(plugins: Plugins) -> dict[str, str]:
    """Versions of Python, of the main packages, and of the distributions of working plugins."""
    packages = {name: version(name) for name in _PACKAGES}
    packages |= {s.origin.distribution: s.origin.version for s in plugins.statuses if not s.problem}
    return {"python": platform.python_version(), **packages}
