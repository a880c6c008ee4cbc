"""A network compressed at one price of a bit after another."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vqzoo.calibration.repair import repair_with
from vqzoo.compression.layer import CompressedLayer
from vqzoo.compression.model import NOT_REACHED, compress_model
from vqzoo.compression.norms.folding import merge_norms
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.rest import with_rounded_rest
from vqzoo.compression.view import copy_with_weights, weight_key, weight_matrix
from vqzoo.numerics.feedback.layer import feedback_loss
from vqzoo.progress import Watcher
from vqzoo.report.budget import HeldOutRecord, PriceStep
from vqzoo.report.layer_record import layer_record
from vqzoo.runs.budget.held_out import HeldOut
from vqzoo.runs.budget.methods import price_option, priced
from vqzoo.runs.compress_layers import (
    KeptLayer,
    encode,
    gather_statistics,
    weights_file_bytes,
)
from vqzoo.runs.prepare import Prepared


@dataclass(frozen=True)
class Trial:
    """The network at one price.

    Attributes:
        step: what the record says about it.
        layers: the compressed layers by their place in the plans.
        priced_bytes: stored bytes of the layers that got the price.
        losses: layer -> predicted loss, for layers with second-order statistics.
    """

    step: PriceStep
    layers: dict[int, KeptLayer]
    priced_bytes: int
    losses: dict[str, float]


@dataclass(frozen=True)
class _TriedLayer:
    """A layer at one price: its place in the plans, and what becomes of it."""

    index: int
    kept: KeptLayer
    decoded: Tensor | None
    loss: float | None


class Trials:
    """Compresses a network at given prices; what does not depend on them is done once."""

    def __init__(self, prepared: Prepared, watcher: Watcher, *, keep_going: bool) -> None:
        self._prepared = prepared
        self._watcher = watcher
        self._keep_going = keep_going
        self._statistics = gather_statistics(prepared, (), watcher)
        for plan in prepared.plans:
            name = plan.layer.name
            if self._statistics is not None and name not in self._statistics:
                watcher.note(name, NOT_REACHED)
        self._fixed: dict[int, _TriedLayer] = {}
        self._held_out: HeldOut | None = None
        if prepared.held_out is not None:
            dense = prepared.opened.module
            self._held_out = HeldOut(dense, prepared.held_out, prepared.device, watcher)

    def at(self, price: float) -> Trial:
        """Compress the network at a price, count its bytes, and judge it if images are held out.

        Raises:
            NothingCompressed: no layer could be compressed.
            PluginError: a plugin failed, and `keep_going` is off.
        """
        prepared = self._prepared
        tried, _ = compress_model(
            prepared.opened.module,
            priced(prepared.plans, prepared.plugins, price),
            prepared.plugins,
            self._keep,
            seed=prepared.recipe.seed,
            device=prepared.device,
            progress=_WithoutNotes(self._watcher),
            statistics=self._statistics,
            finished=self._fixed,
            keep_going=self._keep_going,
            keep_going_option="--keep-going",
        )
        encoded = [layer.kept.encoded for layer in tried]
        losses = {layer.kept.row.name: layer.loss for layer in tried if layer.loss is not None}
        step = PriceStep(
            price=price,
            bytes=weights_file_bytes(prepared, prepared.opened.module, encoded),
            predicted_loss=sum(losses.values()) if losses else None,
            held_out=self._judge(tried),
        )
        return Trial(
            step,
            {layer.index: layer.kept for layer in tried},
            sum(layer.kept.encoded.nbytes for layer in tried if layer.index not in self._fixed),
            losses,
        )

    def _keep(self, index: int, compressed: CompressedLayer, decoded: Tensor) -> _TriedLayer:
        encoded = encode(self._prepared, compressed)
        kept = KeptLayer(encoded, layer_record(compressed, encoded))
        loss = self._predicted_loss(compressed, decoded)
        tried = _TriedLayer(index, kept, None if self._held_out is None else decoded, loss)
        if price_option(self._prepared.plans[index], self._prepared.plugins) is None:
            self._fixed[index] = tried
        return tried

    def _predicted_loss(self, compressed: CompressedLayer, decoded: Tensor) -> float | None:
        """½ Σ_i g_i e_i H e_iᵀ of a layer; see `SecondOrder`."""
        layer, statistics = compressed.layer, self._statistics or {}
        known = statistics.get(layer.name, Statistics()).second_order
        if known is None:
            return None
        weight = weight_matrix(self._prepared.opened.module, layer, decoded.device)
        known = known.to(decoded.device)
        return feedback_loss(weight - decoded, known.hessian, known.row_weights) / 2

    def _judge(self, tried: Sequence[_TriedLayer]) -> HeldOutRecord | None:
        """The network on the images held out, repaired if the recipe repairs it."""
        if self._held_out is None:
            return None
        prepared, dense = self._prepared, self._prepared.opened.module
        matrices = {
            layer.kept.row.name: layer.decoded.clone()
            for layer in tried
            if layer.decoded is not None
        }
        network: nn.Module = copy_with_weights(dense, matrices)
        if prepared.repair is not None:
            network = repair_with(
                prepared.repair,
                dense,
                network,
                matrices,
                device=prepared.device,
                watcher=self._watcher,
            ).module
        if prepared.norms is not None:
            network = merge_norms(network)
        if prepared.recipe.rest_dtype == "float16":
            network = with_rounded_rest(network, [weight_key(name) for name in matrices]).module
        return self._held_out.judge(network)


class _WithoutNotes:
    """A `Progress` that drops notes: the price that is chosen makes them again."""

    def __init__(self, watcher: Watcher) -> None:
        self.layer_started = watcher.layer_started
        self.layer_step = watcher.layer_step

    def note(self, layer: str, text: str) -> None:
        """Drop a note."""
