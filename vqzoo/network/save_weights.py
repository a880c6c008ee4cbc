"""`vqzoo.save_weights`: an artifact without an architecture."""

from pathlib import Path

from torch import Tensor

from vqzoo.artifact.folder import check_target, replacement_folder
from vqzoo.artifact.reader import open_artifact, verify_checksum
from vqzoo.artifact.schema import WEIGHTS_ONLY, Layout, Rest
from vqzoo.artifact.writer import write_artifact
from vqzoo.compression.rest import with_rounded_rest
from vqzoo.errors import UsageError, VqzooError
from vqzoo.network.compressed_model import CompressedModel, encoded_layers, method_label
from vqzoo.network.load_into import decoded_state
from vqzoo.network.module_state import module_state, same_values
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import Plugins, installed_plugins


def save_weights(
    small: CompressedModel,
    folder: str | Path,
    *,
    packing: str | None = None,
    rest: Rest | None = None,
    layout: Layout | None = None,
    force: bool = False,
) -> None:
    """Write an artifact without an architecture, which `vqzoo.load_into` reads.

    For networks that timm cannot create: torchvision's, those with a head of your own, your own
    classes. The artifact cannot be published, and the commands that build networks refuse it.

    The file is read back and decoded first: every tensor must be the one in `small.module`, rounded
    where `rest` says so. The folder appears whole or not at all.

    Args:
        small: what `vqzoo.compress` or `vqzoo.finetune` returned.
        folder: the artifact's folder.
        packing: how codes become bytes: "bits", "huffman", "ans", "context", or a plugin's
            packing; None for that of each method, which is "bits" for most.
        rest: how float32 tensors that stay dense are stored, as for `CompressedModel.save`.
        layout: how the file is laid out, as there.
        force: replace an artifact that exists.

    Raises:
        UsageError: the folder exists, or the network keeps something in its state dict that an
            artifact cannot hold.
        VqzooError: weights of `small.module` were changed after compression, or the disk is full.

    Example:
        >>> vqzoo.save_weights(vqzoo.compress(model, "pq"), "my-weights")
    """
    if not isinstance(small, CompressedModel):
        raise UsageError(
            f"save_weights takes what vqzoo.compress returns, not a {type(small).__name__}"
        )
    target = Path(folder)
    check_target(target, "", force=force, option="force=True")
    rest, layout = rest or small.rest, layout or small.layout
    module = small.module
    config = {"network": type(small.module).__name__}
    with plugin_files(small.plugin_files):
        plugins = installed_plugins()
        encoded = encoded_layers(small, packing, plugins)
    if rest == "float16":
        module = with_rounded_rest(module, [layer.key for layer in encoded]).module
    state = module_state(module)
    with replacement_folder(target) as scratch:
        write_artifact(
            scratch,
            module,
            encoded,
            config,
            method=method_label(small),
            weights="in memory",
            features=[WEIGHTS_ONLY],
            rest=rest,
            layout=layout,
            norms=small.norms,
        )
        _prove(scratch, state, plugins)


def _prove(folder: Path, state: dict[str, Tensor], plugins: Plugins) -> None:
    """Read an artifact back and compare it with the network, tensor by tensor.

    Raises:
        VqzooError: names the first tensor that differs.
    """
    artifact = open_artifact(folder)
    verify_checksum(artifact)
    values, _ = decoded_state(artifact, plugins)
    for key, tensor in state.items():
        if not same_values(tensor.detach().cpu(), values[key].to(tensor.dtype)):
            raise VqzooError(
                f"nothing was saved: {key!r} is not what its codes decode to; was the network "
                "changed after it was compressed?"
            )
