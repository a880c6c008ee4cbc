"""`vqzoo.CompressedModel`: a compressed network that runs and can be saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from vqzoo.artifact.encode import EncodedLayer
from vqzoo.artifact.folder import check_target, replacement_folder
from vqzoo.artifact.schema import Layout, Rest
from vqzoo.artifact.writer import record_proof, write_artifact
from vqzoo.calibration.repair import Repaired
from vqzoo.compression.encoded import encode_compressed
from vqzoo.compression.layer import CompressedLayer
from vqzoo.compression.measures.coverage import Coverage, account
from vqzoo.compression.rest import with_rounded_rest
from vqzoo.compression.view import layer_weight
from vqzoo.models.arguments import required_features
from vqzoo.models.timm_config import timm_config
from vqzoo.network.load import load
from vqzoo.network.proof import prove
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.report.budget import BudgetRecord


class CompressedModel(nn.Module):
    """A compressed network that runs.

    Attributes that it lacks are those of the original: `pretrained_cfg`, `num_classes`,
    `forward_features` and whatever else timm looks for on a model.

    Attributes:
        module: a copy of the original in eval mode, its compressed weights decoded.
        layers: the compressed layers with their codes and errors, in the model's order.
        skipped: layer, or parameter that is no layer's weight -> why it stayed dense. Biases,
            norms and other vectors are not listed; `coverage` counts them.
        plugin_files: the plugin files that it was compressed with.
        repaired: what `repair=` corrected, None where nothing was to be repaired.
        rest: how its files store tensors that stay dense, by default.
        layout: how its files are laid out, by default.
        budget: what a budget chose, and what it predicted; None without one.
        norms: batch norm -> the layer whose weights have its scale; empty without `fold_norms=`.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[CompressedLayer],
        skipped: Mapping[str, str],
        plugins: Sequence[str | Path] = (),
        repaired: Repaired | None = None,
        *,
        rest: Rest = "float32",
        layout: Layout = "plain",
        budget: BudgetRecord | None = None,
        norms: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.layers = tuple(layers)
        self.skipped = dict(skipped)
        self.plugin_files = tuple(plugins)
        self.repaired = repaired
        self.rest: Rest = rest
        self.layout: Layout = layout
        self.budget = budget
        self.norms = dict(norms or {})

    @property
    def coverage(self) -> Coverage:
        """How much of the network's weights is compressed, and why the rest is not."""
        return account(self.module, {layer.layer.name for layer in self.layers}, self.skipped)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the decoded network."""
        return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # While it is unpickled there is no module yet; copying looks for special methods here.
            if name.startswith("__") or "module" not in self.__dict__.get("_modules", {}):
                raise
        return getattr(self.module, name)

    def save(
        self,
        folder: str | Path,
        *,
        model_args: Mapping[str, Any] | None = None,
        packing: str | None = None,
        rest: Rest | None = None,
        layout: Layout | None = None,
        force: bool = False,
    ) -> None:
        """Write an artifact that `vqzoo.load` reads.

        The folder appears whole or not at all: the network that it rebuilds must give the outputs
        of this one on random images.

        Args:
            folder: the artifact's folder.
            model_args: arguments of `timm.create_model` that take the place of those that timm
                recorded, where an artifact cannot hold them: a layer class that timm has no name
                for, for example.
            packing: how codes become bytes: "bits", "huffman", "ans", "context", or a plugin's
                packing; None for that of each method, which is "bits" for most.
            rest: how float32 tensors that stay dense are stored: "float16" rounds those whose
                values it keeps to within 2^-11 of the largest; None for "float32", and "float16"
                of what was compressed under a budget.
            layout: how the file is laid out: "compact" compresses its header; neither older
                versions of vqzoo nor other safetensors readers see the tensors in it; None for
                "plain", and "compact" under a budget and with folded norms.
            force: replace an artifact that exists.

        Raises:
            UsageError: the folder exists, or timm cannot create this model again (see
                `vqzoo.save_weights`).
            VqzooError: what timm creates again computes something else; names the module.
        """
        with plugin_files(self.plugin_files):
            self._save(
                Path(folder), model_args, packing, rest or self.rest, layout or self.layout, force
            )

    def _save(
        self,
        target: Path,
        model_args: Mapping[str, Any] | None,
        packing: str | None,
        rest: Rest,
        layout: Layout,
        force: bool,
    ) -> None:
        check_target(target, "", force=force, option="force=True")
        plugins = installed_plugins()
        config = timm_config(self.module, model_args, pretrained=False)
        encoded, label = encoded_layers(self, packing, plugins), method_label(self)
        module = self.module
        if rest == "float16":
            module = with_rounded_rest(module, [layer.key for layer in encoded]).module
        with replacement_folder(target) as folder:
            write_artifact(
                folder,
                module,
                encoded,
                config,
                method=label,
                weights="in memory",
                features=required_features(config),
                rest=rest,
                layout=layout,
                norms=self.norms,
            )
            record_proof(folder, prove(module, load(folder)))


def encoded_layers(
    small: CompressedModel, packing: str | None, plugins: Plugins
) -> list[EncodedLayer]:
    """The compressed layers as a file holds them, their codes packed by `packing`."""
    return [
        encode_compressed(
            layer, layer_weight(small.module, layer.layer.name).dtype, packing, plugins
        )
        for layer in small.layers
    ]


def method_label(small: CompressedModel) -> str:
    """The method of all layers, or "mixed"."""
    methods = {layer.method for layer in small.layers}
    return methods.pop() if len(methods) == 1 else "mixed"
