"""The conformance kit's rules for importers."""

import copy
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from vqzoo.errors import PluginError, VqzooError
from vqzoo.network.imported import fill_network, import_target, read_file
from vqzoo.plugin.formats.importer import ImportedNetwork, Importer, ImportTarget
from vqzoo.plugin.manager import Plugins, installed_plugins
from vqzoo.plugin.registry import Origin, Registered
from vqzoo.testing.broken import check_rules, require

_DAMAGES = 12  # places of each file where a byte is changed
_COUNTERS = "num_batches_tracked"


@dataclass(frozen=True)
class Trial:
    """An importer, a file that it reads, and what the other library decodes from that file."""

    importer: Importer
    path: Path
    model: nn.Module
    expected: Mapping[str, Tensor]

    @cached_property
    def target(self) -> ImportTarget:
        """The network as the importer sees it."""
        return import_target(self.model)

    @cached_property
    def plugins(self) -> Plugins:
        """The installed methods."""
        return installed_plugins()

    def read(self, path: Path | None = None, target: ImportTarget | None = None) -> ImportedNetwork:
        """What the importer reads, checked by the core."""
        origin = Origin("under-test", "under-test", "0")
        entry = Registered(self.importer.name, self.importer, origin)
        return read_file(entry, path or self.path, target or self.target, self.plugins)

    def decoded(self, network: ImportedNetwork) -> Mapping[str, Tensor]:
        """The state dict of the network with the contents of a file."""
        model = copy.deepcopy(self.model)
        fill_network(model, network, self.plugins, self.path)
        return model.state_dict()

    def refused_or_sound(self, path: Path, what: str, target: ImportTarget | None = None) -> bool:
        """Read a file that is damaged or does not fit.

        Returns:
            Whether the importer, or the core, refused it.
        """
        try:
            self.importer.read(path, target or self.target)
        except PluginError as error:
            require(False, f"{what}: {error}")
        except VqzooError as error:
            require("\n" not in str(error), f"{what}: the message has several lines")
            return True
        try:
            network = self.read(path, target)
            if target is None:
                self.decoded(network)
        except VqzooError:
            return True
        return False


def it_is_described(trial: Trial) -> None:
    """`summary` says what files it reads, and `source` which library or paper they are of."""
    require(bool(trial.importer.summary), "its summary is empty")
    require(bool(trial.importer.source), "its source is empty")


def weights_are_the_other_librarys(trial: Trial) -> None:
    """The decoded network equals what the other library decodes, bit by bit, and some of its layers
    are codes."""
    state = trial.decoded(trial.read())
    for key, values in trial.expected.items():
        if key.rpartition(".")[2] == _COUNTERS:
            continue
        require(key in state, f"the network has no {key}")
        same = torch.equal(state[key], values.to(state[key].dtype))
        require(same, f"{key} has other values")


def reading_is_pure(trial: Trial) -> None:
    """A second call of `read` gives the same, and the file stays as it was."""
    before = _contents(trial.path)
    states = [trial.decoded(trial.read()) for _ in range(2)]
    require(_contents(trial.path) == before, "read changed the file")
    for key, values in states[0].items():
        require(torch.equal(values, states[1][key]), f"the second call gave another {key}")


def networks_that_do_not_fit_are_refused(trial: Trial) -> None:
    """`read` raises VqzooError, or returns what the core refuses, for a network that has another
    layer, one layer less, or layers of other shapes; it raises nothing else."""
    for what, target in _other_targets(trial.target):
        refused = trial.refused_or_sound(trial.path, what, target)
        require(refused, f"{what}: the file was accepted")


def damaged_files_are_refused_or_read(trial: Trial) -> None:
    """`read` raises VqzooError, with a message of one line, for a file that ends too early or has
    other bytes; or it returns a network that the core can use, where the damage changed no more
    than values. It raises nothing else: anyone may have written the file."""
    for what, path in _damaged(trial.path):
        trial.refused_or_sound(path, what)


def empty_files_are_refused(trial: Trial) -> None:
    """`read` raises VqzooError for an empty file, and for an empty folder."""
    with _copy(trial.path) as path:
        name = path.name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.write_bytes(b"")
        require(trial.refused_or_sound(path, "an empty file"), f"it accepted an empty {name}")
        path.unlink()
        path.mkdir()
        require(trial.refused_or_sound(path, "an empty folder"), "it accepted an empty folder")


IMPORTER_RULES: tuple[Callable[[Trial], None], ...] = (
    it_is_described,
    weights_are_the_other_librarys,
    reading_is_pure,
    networks_that_do_not_fit_are_refused,
    damaged_files_are_refused_or_read,
    empty_files_are_refused,
)


def check_importer(
    importer: Importer | type[Importer],
    path: str | Path,
    model: nn.Module,
    expected: Mapping[str, Tensor],
) -> None:
    """Check an importer against the contract.

    Args:
        importer: the class, or an instance.
        path: a file, or a folder, as the other library writes it. It is not changed.
        model: the network that the file is of; its weights do not matter.
        expected: what the other library decodes from the file: keys of the network's state dict to
            tensors.

    Raises:
        ExceptionGroup: holds a `ContractBroken` for each broken rule.
    """
    instance = importer() if isinstance(importer, type) else importer
    name = type(instance).__name__
    check_rules(name, IMPORTER_RULES, lambda: Trial(instance, Path(path), model, expected))


def _other_targets(target: ImportTarget) -> Iterator[tuple[str, ImportTarget]]:
    """Networks that a file of the target does not fit."""
    key, layer = list(target.layers.items())[-1]
    name, bias = layer.name, f"{layer.name}.bias"
    rows = layer.shape[0]
    added = {f"{name}_extra.weight": layer.shape}
    larger = {key: (rows + 1, *layer.shape[1:])}
    if bias in target.shapes:
        added[f"{name}_extra.bias"] = target.shapes[bias]
        larger[bias] = (rows + 1,)
    extra = {f"{name}_extra.weight": replace(layer, name=f"{name}_extra")}
    layers, shapes = target.layers, target.shapes
    yield (
        "a network with another layer",
        replace(target, layers={**layers, **extra}, shapes={**shapes, **added}),
    )
    yield (
        "a network with one layer less",
        replace(
            target,
            layers={other: info for other, info in layers.items() if other != key},
            shapes={other: shape for other, shape in shapes.items() if other not in (key, bias)},
        ),
    )
    yield (
        "a network with a larger layer",
        replace(
            target,
            layers={**layers, key: replace(layer, shape=larger[key])},
            shapes={**shapes, **larger},
        ),
    )


def _contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in _files(path)}


def _files(path: Path) -> list[Path]:
    files = path.rglob("*") if path.is_dir() else [path]
    return sorted(file for file in files if file.is_file())


@contextmanager
def _copy(path: Path) -> Iterator[Path]:
    """A copy of a file or a folder, of the same name."""
    with tempfile.TemporaryDirectory() as parent:
        copied = Path(parent) / path.name
        if path.is_dir():
            shutil.copytree(path, copied)
        else:
            shutil.copy(path, copied)
        yield copied


def _damaged(path: Path) -> Iterator[tuple[str, Path]]:
    """Copies of a file or a folder, of which one file is damaged each."""
    choose = random.Random(0)
    with _copy(path) as copied:
        for file in _files(copied):
            whole = file.read_bytes()
            for length in sorted({0, 1, len(whole) // 2, max(0, len(whole) - 1)}):
                file.write_bytes(whole[:length])
                yield f"{file.name} that ends after {length} bytes", copied
            for _ in range(_DAMAGES if whole else 0):
                place, value = choose.randrange(len(whole)), choose.randrange(1, 256)
                changed = bytearray(whole)
                changed[place] ^= value
                file.write_bytes(bytes(changed))
                yield f"{file.name} with another byte {place}", copied
            file.write_bytes(whole)
