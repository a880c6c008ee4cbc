"""Core AI assets, by way of torch.export and Apple's coreai-torch."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from vqzoo.artifact.files import write_text
from vqzoo.errors import VqzooError, one_line
from vqzoo.network.export.compare import TOLERANCE, compare, example_images
from vqzoo.network.export.coreml.forms import split_products, take_forms, told
from vqzoo.network.export.coreml.package import LOGIT_TOLERANCES
from vqzoo.network.export.coreml.palette import Palette
from vqzoo.network.export.elsewhere import runner_elsewhere
from vqzoo.network.export.record import Tables, Written
from vqzoo.network.export.traces import remove_traces

FOLDER = "model.aimodel"
PACKAGES = ("coreai", "coreai_torch")
_RUN = "vqzoo.network.export.coreai.run"
_METADATA = "metadata.json"
_SCALES = ("scale", "table_scale")
_WIDTHS = (1, 2, 4, 6, 8)  # of codes that coreai-torch packs


class PaletteWeight(nn.Module):
    """Decodes a weight by Core AI's `lut_to_dense`; its buffers have the names that coreai-torch
    knows codes and tables by."""

    def __init__(self, palette: Palette) -> None:
        super().__init__()
        self._axis = palette.axis or 0
        bits = next(width for width in _WIDTHS if width >= palette.bits)
        table = torch.from_numpy(palette.table)
        unused = table[..., -1:, :].expand(*table.shape[:-2], (1 << bits) - table.shape[-2], -1)
        self.register_buffer("indices", torch.from_numpy(palette.codes))
        self.register_buffer("lut", torch.cat([table, unused], -2))
        scales = [palette.scale, palette.table_scale]
        if scales[1] is not None:
            scales[1] = scales[1][..., 0, 0]  # one of each table
        for name, scale in zip(_SCALES, scales, strict=True):
            self.register_buffer(name, None if scale is None else torch.from_numpy(scale))

    def forward(self, placeholder: Tensor) -> Tensor:
        """The weight in float32; its placeholder is not used."""
        looked_up = torch.ops.coreai.lut_to_dense(self.indices, self.lut, self._axis)
        weight: Tensor = looked_up.float()
        for name in _SCALES:
            scale = self._buffers[name]
            if scale is not None:
                weight = weight * _spread(scale.float(), weight.shape)
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        """An empty tensor to stand where the weight was."""
        return weight.new_empty(0)


def _spread(scale: Tensor, shape: torch.Size) -> Tensor:
    """Scales of blocks of a weight's axes as they broadcast to its shape."""
    for axis, blocks in enumerate(scale.shape):
        if blocks > 1:
            scale = scale.repeat_interleave(shape[axis] // blocks, axis)
    return scale


def write_coreai(
    model: nn.Module, dense: nn.Module, folder: Path, tables: Tables = "float16"
) -> Written:
    """Write model.aimodel for one image, and run it with coreai-core's runtime.

    Args:
        model: the network, its weights dense or decoded by `PackedWeight`; it is changed.
        dense: another copy of the network, with decoded weights.
        folder: where to write.
        tables: the dtype of palettes' entries.

    Raises:
        VqzooError: coreai-torch cannot convert the network, or the asset computes something else.
    """
    forms = take_forms(model, tables)
    split_products(model, forms)
    with _quiet():
        import coreai_torch
        import coreai_torch._compression.custom_layers  # torch's operators, as coreai-opt gets them

        for key, palette in forms.palettes.items():
            path, _, name = key.rpartition(".")
            module: Any = model.get_submodule(path)
            register_parametrization(module, name, PaletteWeight(palette), unsafe=True)
        images = example_images(model, 1)
        try:
            with torch.no_grad():
                program = torch.export.export(model, (images,))
                remove_traces(program)
                program = program.run_decompositions(coreai_torch.get_decomp_table())
            converter = coreai_torch.TorchConverter(mode=coreai_torch.TorchConverter.Mode.RELEASE)
            converter.add_exported_program(program, input_names=["images"], output_names=["logits"])
            converter.to_coreai().save_asset(folder / FOLDER)
        except Exception as error:
            raise VqzooError(
                f"coreai-torch cannot convert this network: {one_line(error)}"
            ) from error
    _forget_the_time(folder / FOLDER / _METADATA)
    runtime = f"coreai-core {version('coreai-core')}"
    run = runner_elsewhere(_RUN, folder / FOLDER, runtime)
    tolerance = TOLERANCE if tables == "float16" else LOGIT_TOLERANCES[tables]
    check = compare(run, dense, runtime, FOLDER, tolerance)
    facts = (
        ("coreai_torch", version("coreai-torch")),
        ("torch", str(torch.__version__)),
        ("palettes", len(forms.palettes)),
        ("int8_tables", forms.int8_tables),
        ("two_layers", len(forms.factors)),
    )
    return Written(check, facts, told(forms.dense, dense.state_dict()))


def _forget_the_time(metadata: Path) -> None:
    """So that the same command writes the same bytes."""
    known = json.loads(metadata.read_text(encoding="utf-8"))
    known.pop("creationDate", None)
    write_text(metadata, json.dumps(known, indent=2, sort_keys=True) + "\n")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without coreai-torch's remarks on versions, and progress of its own."""
    with warnings.catch_warnings(), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield
